"""What is said beside a language model's words, or without any: passages, citations, sources.

Pure functions over what was cited; a dialect's JSON is its adapter's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from embedserve.services.chat_passages import CitedDocument

_MARK = re.compile(r"\[(\d{1,3})\]")
_IN_LINK = str.maketrans({"[": "(", "]": ")", "\\": "/"})
_IN_ADDRESS = {"(": "%28", ")": "%29", " ": "%20"}


@dataclass(frozen=True)
class Citation:
    """A place in an answer, in characters, end exclusive, and the document that is cited there."""

    document: CitedDocument
    start: int
    end: int


def citations(text: str, documents: Sequence[CitedDocument]) -> list[Citation]:
    """Return what an answer cites, in order; where it cites nothing, every document at its end."""
    by_number = {document.number: document for document in documents}
    found = [
        Citation(by_number[int(match[1])], *match.span())
        for match in _MARK.finditer(text)
        if int(match[1]) in by_number
    ]
    return found or [Citation(document, len(text), len(text)) for document in documents]


def source_list(heading: str, text: str, documents: Sequence[CitedDocument]) -> str:
    """Return a list in Markdown of the documents that an answer cites, or of all; empty: none."""
    numbers = {one.document.number for one in citations(text, documents)}
    lines = [
        f"- [{document.number}] {_link(document)}"
        for document in documents
        if document.number in numbers
    ]
    return "\n".join([f"\n\n**{heading}**\n", *lines]) if lines else ""


def alone(intro: str, documents: Sequence[CitedDocument]) -> str:
    """Return the passages as an answer by themselves, in Markdown."""
    parts = [intro.strip()]
    for document in documents:
        pages = sorted({one.page for one in document.passages if one.page})
        place = f" (p. {', '.join(map(str, pages))})" if pages else ""
        parts.append(f"**[{document.number}]** {_link(document)}{place}")
        parts += [_quoted(passage.text) for passage in document.passages]
    return "\n\n".join(parts)


def _link(document: CitedDocument) -> str:
    name = document.name.translate(_IN_LINK)
    address = "".join(_IN_ADDRESS.get(char, char) for char in document.url)
    return f"[{name}]({address})"


def _quoted(text: str) -> str:
    # A picture of a document would be fetched from wherever it says, by who reads the answer.
    shown = text.strip().replace("![", "!\u200b[")
    return "\n".join(f"> {line}".rstrip() for line in shown.splitlines())
