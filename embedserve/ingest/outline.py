"""What the lines of source code say about its definitions, in any language that indents.

Keywords, signatures and indentation; no grammar. What is missed costs a worse boundary, never
text. Linear in the text.
"""

import re
from dataclasses import dataclass

from embedserve.ingest.spans import line_spans

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
    found: list[Definition] = []
    stack: list[_Open] = []
    above = -1  # where the comments and decorators that precede this line begin
    above_indent = 0
    end_of_code = 0
    for start, end in line_spans(text):
        line = text[start : min(end, start + MAX_LINE_CHARS)].rstrip()
        bare = line.lstrip()
        if not bare:
            above = -1
            continue
        indent = len(line.expandtabs(4)) - len(bare.expandtabs(4))
        if not bare.startswith(_CLOSERS):
            place = above if above >= 0 and above_indent == indent else start
            while stack and stack[-1].indent >= indent:
                found.append(_closed(stack.pop(), min(end_of_code, place)))
        if _is_definition(bare, indent):
            first = above if above >= 0 and above_indent == indent else start
            own = start + len(line) - len(bare)
            stack.append(_Open(first, own, indent, _title(bare)))
            above = -1
        elif bare.startswith(_ABOVE):
            above, above_indent = (start, indent) if above < 0 else (above, above_indent)
        else:
            above = -1
        end_of_code = end
    while stack:
        found.append(_closed(stack.pop(), end_of_code))
    return sorted(found, key=lambda one: (one.line, -one.end))


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
