"""Bytes to characters, and characters to clean text. Knows no file format."""

import codecs
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace

from embedserve.ingest import legacy

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 65_536
_ANY_BYTE = "Windows-1252"
"""In which every byte is a character, other than in the codec of that name."""
_DECLARED_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,400}?(?:charset|encoding)=["']?([\w.:-]+)""", re.I
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
# Share of control characters from which bytes are taken for no text at all.
_MAX_CONTROL_SHARE = 0.02


Decoder = Callable[[bytes, bool], str]
"""Takes the next bytes, and whether they are the last; keeps what is cut off in a character."""


@dataclass(frozen=True)
class Decoded:
    """Characters, and what was guessed to get them."""

    text: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """How bytes become characters, and what was guessed about it."""

    name: str
    """Of a codec, or `_ANY_BYTE`."""
    mark_bytes: int = 0
    """In front of the text."""
    warnings: tuple[str, ...] = ()

    def decoder(self) -> Decoder:
        """Return what decodes the bytes behind the mark in order; never raises."""
        if self.name == _ANY_BYTE:
            return lambda content, _: codecs.charmap_decode(content, "strict", _WINDOWS_1252)[0]
        return codecs.getincrementaldecoder(self.name)("replace").decode

    def decode(self, content: bytes) -> Decoded:
        """Decode all of a text, mark included."""
        return Decoded(self.decoder()(content[self.mark_bytes :], True), self.warnings)


def preload() -> None:
    """Load every codec that a document may name, for a process that will open no file again."""
    for name in _CODECS.split():
        codecs.lookup(name)


def decode(content: bytes, *, is_markup: bool = False) -> Decoded | None:
    """Decode text of unknown encoding, or return None for bytes that are no text.

    Tries, in order: byte order mark, UTF-8, what HTML or XML declares (`is_markup`), UTF-16
    without a mark; then the likeliest older encoding, with a warning.
    """
    if encoding := _marked(content):
        return encoding.decode(content)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        if is_markup and (declared := _declared(content)):
            return declared
    else:
        if "\0" not in text or is_markup:
            return Decoded(text) if is_markup or _is_text(text) else None
    found = _guess(content[:_SAMPLE_BYTES], is_markup=is_markup)
    return found.decode(content) if found else None


def encoding_of(head: bytes, *, is_utf8: bool) -> Encoding | None:
    """Return what `decode` would take a text for that begins so; None for bytes that are no text.

    `is_utf8` says it of the whole text.
    """
    if encoding := _marked(head):
        return encoding
    if is_utf8:
        text = head.decode("utf-8", "ignore")  # the head may end inside of a character
        if "\0" not in text:
            return Encoding("utf-8") if _is_text(text) else None
    return _guess(head[:_SAMPLE_BYTES], is_markup=False)


def clean(text: str) -> str:
    r"""Make line ends `\n`, drop control characters, compose to NFC; change nothing else."""
    text = _LINE_ENDS.sub("\n", text)
    return unicodedata.normalize("NFC", _CONTROLS.sub("", text))


def _marked(content: bytes) -> Encoding | None:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return Encoding(name, len(mark))
    return None


def _declared(content: bytes) -> Decoded | None:
    if found := _DECLARED_CHARSET.search(content[:_SAMPLE_BYTES]):
        try:
            declared = codecs.lookup(found[1].decode("ascii")).name
            if declared != "utf-8":  # which it is not, or nobody would guess
                return Decoded(content.decode(declared, "replace"))
        except (LookupError, UnicodeDecodeError, ValueError):
            pass  # a name that is no encoding: guess as if it were absent
    return None


def _guess(sample: bytes, *, is_markup: bool) -> Encoding | None:
    if (name := _utf16_without_mark(sample)) is not None:
        return Encoding(name)
    if not is_markup and legacy.is_ebcdic(sample):
        return Encoding("cp500", warnings=(_guessed("EBCDIC"),))
    name = legacy.guess(sample)
    # Latin-1's control block stands in for the five bytes that Windows-1252 leaves out.
    plain = Encoding(_ANY_BYTE)
    found = Encoding(name) if name else plain
    if not is_markup and not any(_is_text(one.decode(sample).text) for one in (plain, found)):
        return None
    return replace(found, warnings=(_guessed(name or _ANY_BYTE),))


def _guessed(name: str) -> str:
    return f"The text is not UTF-8; it was read as {name}, which is a guess."


def _utf16_without_mark(sample: bytes) -> str | None:
    # Text in a Latin script has a NUL in every second place and hardly one in the others.
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    most = max(even, odd)
    if most * 4 < len(sample) or min(even, odd) * 10 > most:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_text(text: str) -> bool:
    sample = text[:_SAMPLE_BYTES]
    if "\0" in sample:
        return False
    return len(_CONTROLS.findall(sample)) <= len(sample) * _MAX_CONTROL_SHARE


_WINDOWS_1252 = "".join(
    bytes([value]).decode("cp1252", "ignore") or chr(value) for value in range(256)
)

_CODECS = """
ascii utf-8 utf-8-sig utf-7 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be latin-1 cp1252
iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10
iso8859-13 iso8859-14 iso8859-15 iso8859-16 cp437 cp850 cp852 cp855 cp866 cp874 cp932 cp936 cp949
cp950 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8-r koi8-u mac-roman shift_jis
shift_jis_2004 euc_jp iso2022_jp gb2312 gbk gb18030 hz big5 big5hkscs euc_kr johab tis-620 cp500
"""
