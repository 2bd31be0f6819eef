"""Read RTF: text with its headings and tables, each run in the encoding of its font.

Written because the library reads every run as Windows-1252. Runs in the worker only; one pass,
no recursion. Pictures, objects, field codes and style tables are passed over.
"""

import re
from dataclasses import dataclass, field, replace

from embedserve.ingest.kinds import FileKind
from embedserve.ingest.readers import Page, Read

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])"
    rb"|([^\\{}\r\n]+)|[\r\n]+|\\",
    re.DOTALL,
)
_PASSED_OVER = frozenset(
    b"colortbl pict fldinst themedata datastore latentstyles listtable listoverridetable rsidtbl"
    b" generator xmlnstbl filetbl revtbl bkmkstart bkmkend nonshppict atnid atnauthor panose falt"
    b" objdata objclass objname sp sn sv template mmathPr xe nonesttables tc private"
    b" fonttbl stylesheet".split()
)
_CHARSETS = {
    77: "mac-roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gbk", 136: "big5",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257",
    204: "cp1251", 222: "cp874", 238: "cp1250", 255: "cp437",
}  # fmt: skip
_SYMBOLS = {
    b"tab": "\t", b"line": "\n", b"emdash": "\u2014", b"endash": "\u2013", b"lquote": "\u2018",
    b"rquote": "\u2019", b"ldblquote": "\u201c", b"rdblquote": "\u201d", b"bullet": "\u2022",
    b"emspace": " ", b"enspace": " ", b"qmspace": " ", b"nestcell": " ", b"nestrow": " ",
    b"softline": " ",
}  # fmt: skip
_ESCAPES = {b"~": "\u00a0", b"_": "\u2011", b"{": "{", b"}": "}", b"\\": "\\", b"\n": "\n"}
# Where fonts of symbols keep their signs; in text they are bullets as a rule.
_BULLET = re.compile("[\uf000-\uf0ff]")
_BREAKS = frozenset([b"par", b"sect", b"page", b"column"])
_MAX_LEVEL = 6


@dataclass(frozen=True)
class _Group:
    """What holds within one pair of braces."""

    is_passed_over: bool = False
    destination: bytes = b""
    font: int = -1
    after_unicode: int = 1
    """Characters that stand in for each `\\u` in readers that do not know it."""


@dataclass
class _Reading:
    codepage: str = "cp1252"
    fonts: dict[int, str] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)
    """Heading level of a paragraph style."""
    group: _Group = field(default_factory=_Group)
    groups: list[_Group] = field(default_factory=list)
    is_group_new: bool = False
    to_skip: int = 0
    raw: bytearray = field(default_factory=bytearray)
    """Bytes not decoded yet: a character may be spread over several tokens."""
    line: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    style: int = -1
    level: int = 0
    is_in_table: bool = False
    was_row: bool = False
    title: list[str] = field(default_factory=list)


def read_rtf(content: bytes, kind: FileKind) -> Read:
    """Return the text of an RTF document as Markdown."""
    reading = _Reading()
    position = 0
    while found := _TOKEN.match(content, position):
        position = found.end()
        if found[1] == b"bin":
            position += max(0, int(found[2] or 0))
        elif found[5]:
            (_open if found[5] == b"{" else _close)(reading)
            if not reading.groups:
                break  # what follows the last brace is no part of the document
        else:
            _read_token(reading, found)
    _end_block(reading)
    text = "".join(reading.blocks)
    # Halves of a character outside of the first plane come one by one.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _BULLET.sub("\u2022", text)
    return Read([Page(None, text)], kind.kind, "".join(reading.title))


def _read_token(reading: _Reading, found: re.Match[bytes]) -> None:
    word, number, code, symbol, _, plain = found.groups()
    if word is not None:
        _control(reading, word, int(number) if number else None)
    elif code is not None:
        _bytes(reading, bytes([int(code, 16)]))
    elif symbol is not None:
        _escape(reading, symbol)
    elif plain is not None:
        _bytes(reading, plain)


def _open(reading: _Reading) -> None:
    _decode(reading)
    reading.groups.append(reading.group)
    reading.is_group_new = True


def _close(reading: _Reading) -> None:
    _decode(reading)
    if reading.groups:
        reading.group = reading.groups.pop()
    reading.is_group_new = False
    reading.to_skip = 0


def _escape(reading: _Reading, symbol: bytes) -> None:
    if symbol == b"*":
        # In the middle of a group it speaks of the next word only, which is passed over anyway.
        if reading.is_group_new:
            reading.group = replace(reading.group, is_passed_over=True)
        return
    if symbol in _ESCAPES:
        _text(reading, _ESCAPES[symbol])


def _control(reading: _Reading, word: bytes, number: int | None) -> None:
    is_first, reading.is_group_new = reading.is_group_new, False
    if is_first and (word in _PASSED_OVER or word in (b"info", b"title")):
        # The title stands among the facts about the document, which are passed over.
        is_hidden = word != b"title"
        reading.group = replace(reading.group, is_passed_over=is_hidden, destination=word)
    elif word == b"ansicpg" and number:
        reading.codepage = _codec(f"cp{number}")
    elif word == b"f" and number is not None:
        _decode(reading)
        reading.group = replace(reading.group, font=number)
    elif word == b"fcharset" and number in _CHARSETS:
        reading.fonts[reading.group.font] = _CHARSETS[number]
    elif word == b"uc" and number is not None:
        reading.group = replace(reading.group, after_unicode=min(max(number, 0), 8))
    elif word == b"u" and number is not None:
        _text(reading, chr(number % 0x10000))
        reading.to_skip = reading.group.after_unicode
    else:
        _layout(reading, word, number)


def _layout(reading: _Reading, word: bytes, number: int | None) -> None:
    if word == b"s" and number is not None:
        reading.style = number
    elif word == b"outlinelevel" and number is not None:
        level = number + 1 if 0 <= number < _MAX_LEVEL else 0
        if reading.group.destination == b"stylesheet":
            reading.levels[reading.style] = level
        else:
            reading.level = level
    elif not reading.group.is_passed_over:
        _visible(reading, word)


def _visible(reading: _Reading, word: bytes) -> None:
    if word == b"pard":
        reading.style, reading.level, reading.is_in_table = -1, 0, False
    elif word == b"intbl":
        reading.is_in_table = True
    elif word in _SYMBOLS:
        _text(reading, _SYMBOLS[word])
    elif word in _BREAKS and reading.is_in_table:
        _text(reading, " ")
    elif word in _BREAKS:
        _end_block(reading)
    elif word == b"cell":
        _decode(reading)
        reading.cells.append(" ".join("".join(reading.line).replace("|", "\\|").split()))
        reading.line.clear()
    elif word == b"row":
        _end_row(reading)


def _bytes(reading: _Reading, piece: bytes) -> None:
    reading.is_group_new = False
    if reading.to_skip:
        skipped = min(reading.to_skip, len(piece))
        reading.to_skip -= skipped
        piece = piece[skipped:]
    if not reading.group.is_passed_over:
        reading.raw += piece


def _text(reading: _Reading, text: str) -> None:
    reading.is_group_new = False
    _decode(reading)
    reading.to_skip = 0
    if not reading.group.is_passed_over:
        _target(reading).append(text)


def _decode(reading: _Reading) -> None:
    if reading.raw:
        codec = reading.fonts.get(reading.group.font, reading.codepage)
        _target(reading).append(reading.raw.decode(codec, "replace"))
        reading.raw.clear()


def _target(reading: _Reading) -> list[str]:
    return reading.title if reading.group.destination == b"title" else reading.line


def _end_block(reading: _Reading) -> None:
    _decode(reading)
    if reading.cells:
        _end_row(reading)
    text = "".join(reading.line).strip()
    reading.line.clear()
    if text:
        level = reading.level or reading.levels.get(reading.style, 0)
        gap = "\n" if reading.was_row else ""
        reading.blocks.append(f"{gap}{'#' * level + ' ' if level else ''}{text}\n\n")
        reading.was_row = False


def _end_row(reading: _Reading) -> None:
    if not any(reading.cells):
        reading.cells.clear()
        return
    reading.blocks.append("| " + " | ".join(reading.cells) + " |\n")
    if not reading.was_row:
        reading.blocks.append("| --- " * len(reading.cells) + "|\n")
    reading.was_row = True
    reading.cells.clear()


def _codec(name: str) -> str:
    known = set(_CHARSETS.values()) | {"cp1252", "cp850", "cp852", "cp866", "cp1251"}
    return name if name in known else {"cp936": "gbk", "cp950": "big5"}.get(name, "cp1252")
