"""What the lines of source code say about its definitions, in any language that indents.

Keywords, signatures and indentation; no grammar. What is missed costs a worse boundary, never
text. Linear in the text.
"""

import re
from dataclasses import dataclass

from embedserve.ingest.spans import Span, line_spans

MAX_TITLE_CHARS = 120
MAX_LINE_CHARS = 1000

_KEYWORD = re.compile(
    r"(?:(?:export|default|public|private|protected|internal|static|abstract|final|sealed|async"
    r"|override|virtual|partial|open|data|inline|unsafe|extern|const|pub(?:\([\w: ]*\))?)\s+)*"
    r"(?:def|class|function|func|fn|fun|sub|struct|enum|union|trait|impl|interface|module|mod"
    r"|namespace|protocol|extension|object|record|proc|macro_rules!|defmodule|defp?|type|contract"
    r"|CREATE\s+\w+|create\s+\w+)\b(?=[\s(<*{])"
)
# Nothing is given back by `*+`: in a line of spaces each of them would be tried.
_ARROW = re.compile(
    r"(?:export\s+)?(?:const|let|var)\s+\w+\s*=\s*+(?:async\s*+)?+\(?+[^;]*=>\s*+[{(]"
)
_NOT_DEFINED = re.compile(
    r"(?:if|else|elif|for|while|switch|match|return|catch|do|new|throw|try|with|case|yield|await"
    r"|from|import|use|include|require|package|echo|print|printf|assert|raise|del"
    r"|not|and|or|in|using|lock|unless|until|when)\b"
)
_ABOVE = ("@", "#", "//", "/*", "*", "--", "[", '"""', "%", ";")
_CLOSERS = ("}", ")", "]", "{", "end", "else", "#if", "#else", "#endif")


@dataclass(frozen=True)
class Definition:
    """A function, class or the like; `start` takes in decorators and comments right above."""

    start: int
    line: int
    """Where its own first word starts."""
    end: int
    title: str


@dataclass
class _Open:
    start: int
    line: int
    indent: int
    title: str


def definitions(text: str) -> list[Definition]:
    """Return the definitions of source code, in order of their lines; inner ones lie in outer."""
    outline = Outline()
    for span in line_spans(text):
        outline.line(text, span)
    return outline.so_far(0)


class Outline:
    """Find definitions line by line."""

    def __init__(self) -> None:
        self._found: list[Definition] = []
        self._stack: list[_Open] = []
        self._above = -1  # where the comments and decorators that precede this line begin
        self._above_indent = 0
        self._is_above = False
        self.end_of_code = 0

    def line(self, text: str, span: Span) -> None:
        """Take in the next line."""
        start, end = span
        line = text[start : min(end, start + MAX_LINE_CHARS)].rstrip()
        bare = line.lstrip()
        if not bare:
            self._is_above = False
            return
        indent = len(line.expandtabs(4)) - len(bare.expandtabs(4))
        first = self._above if self._is_above and self._above_indent == indent else start
        if not bare.startswith(_CLOSERS):
            while self._stack and self._stack[-1].indent >= indent:
                self._found.append(_closed(self._stack.pop(), min(self.end_of_code, first)))
        if _is_definition(bare, indent):
            own = start + len(line) - len(bare)
            self._stack.append(_Open(first, own, indent, _title(bare)))
            self._is_above = False
        elif bare.startswith(_ABOVE):
            if not self._is_above:
                self._above, self._above_indent, self._is_above = start, indent, True
        else:
            self._is_above = False
        self.end_of_code = end

    def so_far(self, open_end: int) -> list[Definition]:
        """Return the definitions in order of their lines; open ones end at `open_end` at least."""
        still_open = [_closed(one, max(self.end_of_code, open_end)) for one in self._stack]
        return sorted([*self._found, *still_open], key=lambda one: (one.line, -one.end))

    def move(self, by: int, start: int) -> None:
        """Count from `by` characters further on; forget what no text from `start` on needs."""
        # What holds it, and the last one before it, beside which it is cut.
        last = max((one.line for one in self._found if one.line <= start), default=start)
        self._found = [
            Definition(one.start - by, one.line - by, one.end - by, one.title)
            for one in self._found
            if one.line >= last or one.end > start
        ]
        for one in self._stack:
            one.start, one.line = one.start - by, one.line - by
        self._above -= by
        self.end_of_code -= by


def _is_definition(bare: str, indent: int) -> bool:
    if _KEYWORD.match(bare) or _ARROW.match(bare):
        return True
    if _NOT_DEFINED.match(bare) or bare.endswith((";", ",")) or not bare[0].isalpha():
        return False
    # Deeper ones have to open a block, or every call would be taken for one.
    is_block = bare.endswith("{")
    return (is_block or indent == 0) and len(bare) < 300 and bool(_is_signature(bare, is_block))


def _is_signature(bare: str, is_block: bool) -> bool:
    head, parenthesis, _ = bare.partition("(")
    words = head.split()
    if not parenthesis or not words or "=" in head or '"' in head or "." in words[-1]:
        return False
    # `name(x)` alone is a call, `type name(x)` a declaration, `name(x) {` a method.
    return (len(words) >= 2 or is_block) and all(_WORD.fullmatch(word) for word in words)


_WORD = re.compile(r"[\w:<>,\[\]*&~?.@$]+")


def _closed(one: _Open, end: int) -> Definition:
    return Definition(one.start, one.line, max(end, one.line + 1), one.title)


def _title(bare: str) -> str:
    return bare.rstrip("{(: \t")[:MAX_TITLE_CHARS]
