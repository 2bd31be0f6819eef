"""Guess the encoding of text from before Unicode, by what the characters would be. Pure functions.

Each candidate is scored by how much of what is not ASCII turns into letters that its languages
really use, in lower case where words usually are; scrambled case and rare letters give a wrong
one away. Short texts stay a guess, which is why the reader says which encoding it took.
"""

import re
from dataclasses import dataclass

SAMPLE_BYTES = 20_000
# A guess below this is not better than Windows-1252.
MIN_SCORE = 0.6
# What another encoding must be better by than Windows-1252, the commonest.
MARGIN = 0.1

_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґў"
_WEST = "äöüßéèêëàâçîïôûùœñáíóúìòãõåæøÄÖÜÉÀÇÑÅØÁÍÓÚ¿¡\u2018\u2019\u201c\u201d\u2013\u2014\u2026"
_CENTRAL = "ąćęłńóśźżĄĆĘŁŃÓŚŹŻáčďéěíňřšťúůýžÁČĎÉĚÍŇŘŠŤÚŮÝŽľĺŕôäöüőűăâîșțşţđ"
_TURKISH = "ğışİçöüâîûĞŞÇÖÜ"
_GREEK = "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώςϊϋ"
_HEBREW = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"
_ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهويىءآأؤإئة،؛؟"
# Two scripts whose letters share their bytes are told apart by how common the letters are.
_ORDERED = frozenset(_CYRILLIC + _HEBREW + _GREEK)
_FREQUENT = frozenset("оеаинтсрвлкдмпу" + "יוהלאתמרשבנ" + "αοιετσνηυρπκμλς")
RARE = 0.7
_THAI = "".join(map(chr, [*range(0x0E01, 0x0E3B), *range(0x0E40, 0x0E4F)]))


@dataclass(frozen=True)
class _Candidate:
    name: str
    letters: frozenset[str]

    @property
    def is_latin(self) -> bool:
        """Whether its words hold letters of ASCII too."""
        return not self.letters.isdisjoint("ùöüç")


_SINGLE = tuple(
    _Candidate(name, frozenset(letters))
    for name, letters in (
        ("cp1252", _WEST),
        ("cp1251", _CYRILLIC),
        ("koi8-r", _CYRILLIC),
        ("cp866", _CYRILLIC),
        ("iso8859-5", _CYRILLIC),
        ("cp1250", _CENTRAL),
        ("iso8859-2", _CENTRAL),
        ("cp1254", _TURKISH),
        ("cp1253", _GREEK),
        ("iso8859-7", _GREEK),
        ("cp1255", _HEBREW),
        ("cp1256", _ARABIC),
        ("iso8859-6", _ARABIC),
        ("cp874", _THAI),
        ("cp850", _WEST),
        ("mac-roman", _WEST),
    )
)
_HANZI_1 = re.compile(rb"[\xb0-\xd7][\xa1-\xfe]")
_DOUBLE = ("cp932", "euc_jp", "gb18030", "cp949", "big5")
_KANA = re.compile("[\u3041-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_HAN = re.compile("[\u4e00-\u9fff]")
_HALF_KANA = re.compile("[\uff61-\uff9f]")
_COMMONEST = "cp1252"
_BESIDE_ASCII = re.compile("(?<=[A-Za-z])[^\x00-\x7f]|[^\x00-\x7f](?=[A-Za-z])")
_HIGH = re.compile("[^\x00-\x7f]")


def guess(content: bytes) -> str | None:
    """Return the name of the likeliest encoding, None when nothing is better than the commonest."""
    sample = _whole_lines(content)
    scores = {name: _double_score(sample, name) for name in _DOUBLE}
    scores |= {one.name: _single_score(sample, one) for one in _SINGLE}
    best = max(scores, key=lambda name: scores[name])
    is_better = scores[best] >= max(MIN_SCORE, scores[_COMMONEST] + MARGIN)
    return best if best != _COMMONEST and is_better else None


def is_ebcdic(content: bytes) -> bool:
    """Tell whether the bytes are text of a mainframe, where a space is 0x40."""
    sample = content[:SAMPLE_BYTES]
    if len(sample) < 16 or sample.count(b"\x40") * 20 < len(sample):
        return False
    plain = sum(
        char.isascii() and (char.isalnum() or char in " .,\n\x85") for char in ebcdic(sample)
    )
    return plain > 0.8 * len(sample)


def ebcdic(content: bytes) -> str:
    """Decode text of a mainframe."""
    return content.decode("cp500")


def _whole_lines(content: bytes) -> bytes:
    if len(content) <= SAMPLE_BYTES:
        return content
    return content[:SAMPLE_BYTES].rpartition(b"\n")[0] or content[: SAMPLE_BYTES // 2 * 2]


def _single_score(sample: bytes, candidate: _Candidate) -> float:
    text = sample.decode(candidate.name, "replace")
    high = _HIGH.findall(text)
    if not high:
        return 0.0
    good = 0.0
    for char in high:
        if char in candidate.letters:
            good += 1 if char not in _ORDERED or char in _FREQUENT else RARE
        elif char.lower() in candidate.letters:
            good += 0.5  # capitals are rarer than small letters
    # Accents stand among letters of ASCII, those of another script among their own kind.
    mixed = len(_BESIDE_ASCII.findall(text)) / len(high)
    if candidate.name == "cp874":
        good *= 0.8  # most pairs of Chinese bytes are Thai letters too
    return good / len(high) * (mixed if candidate.is_latin else 1 - mixed)


def _double_score(sample: bytes, name: str) -> float:
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return 0.0
    high = len(_HIGH.findall(text))
    if high < 2:
        return 0.0
    if 2 * len(_BESIDE_ASCII.findall(text)) > high:
        return 0.0
    han, kana, hangul = (len(one.findall(text)) for one in (_HAN, _KANA, _HANGUL))
    if name in ("cp932", "euc_jp"):
        return 0.0 if not kana or _HALF_KANA.search(text) else (han + 2 * kana) / (high + kana)
    if name == "cp949":
        return (hangul + 0.2 * han) / high
    if name == "gb18030":
        # The commonest characters lie in the first of the standard's two blocks.
        return min(han, len(_HANZI_1.findall(sample))) / high * 0.95
    first = sum(0xA4 <= ord(char.encode(name)[:1]) <= 0xC6 for char in _HAN.findall(text))
    return first / high * 0.9
