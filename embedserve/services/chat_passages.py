"""Passages for a chat model: numbered by document, fenced, and unable to speak for anybody else.

A document is untrusted. Its text stands between two lines with a mark that its author cannot know,
and what chat templates mean by their control tokens (`<|im_start|>system`) is broken in it: servers
read those wherever they stand, and a passage would begin a turn of its own.
"""

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from embedserve.services.search_request import Hit

TITLE_CHARS = 200
"""Of a title or heading: files may have any."""

_APART = "\u200b"  # no width, and no template's
# Llama, Qwen, Phi, GPT (`<|...|>`), DeepSeek (full-width bars), Mistral, Llama 2, Gemma.
_CONTROL = re.compile(
    r"<(?=[|\uff5c])|(?<=[|\uff5c])>|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|"
    r"TOOL_RESULTS|IMG)\])|<(?=<?/?SYS>>)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)|<(?=/?(?:bos|eos|"
    r"pad|unk|think|tool_call|tool_response|system|user|assistant)>)",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class CitedPassage:
    """A passage and where it stands."""

    text: str
    score: float
    """0..1."""
    url: str
    page: int | None = None
    heading: tuple[str, ...] = ()


@dataclass(frozen=True)
class CitedDocument:
    """A document under the number that it is cited by, with its passages, best first."""

    number: int
    path: str
    title: str
    passages: tuple[CitedPassage, ...]

    @property
    def name(self) -> str:
        """Return what a user knows it by."""
        return one_line(self.title or self.path)

    @property
    def url(self) -> str:
        """Return the link to its best passage."""
        return self.passages[0].url


def by_document(
    hits: Sequence[Hit], link: Callable[[Hit], str], *, first: int = 1
) -> tuple[CitedDocument, ...]:
    """Return the documents of hits in the order of their best ones, counted from `first`.

    `link` gives the address of a hit in its document.
    """
    found: dict[int, list[Hit]] = {}
    for hit in hits:
        found.setdefault(hit.chunk.document_id, []).append(hit)
    return tuple(
        CitedDocument(
            number,
            of[0].chunk.path,
            of[0].chunk.title,
            tuple(_passage(hit, link(hit)) for hit in of),
        )
        for number, of in enumerate(found.values(), start=first)
    )


def fenced(documents: Sequence[CitedDocument], mark: str) -> str:
    """Return the passages between two lines with the mark."""
    parts = [
        f"[{document.number}] {_heading(document, passage)}\n{harmless(passage.text)}"
        for document in documents
        for passage in document.passages
    ]
    return "\n\n".join([f"<<< {mark}", *parts, f"{mark} >>>"])


def mark_of(documents: Sequence[CitedDocument], secret: bytes) -> str:
    """Return a mark that no author of these documents can know.

    The same passages have the same one, so that an answer that is asked for again finds its prompt
    in the model's cache.
    """
    said = "\0".join(one.text for document in documents for one in document.passages)
    return hmac.digest(secret, said.encode(errors="replace"), sha256)[:8].hex()


def harmless(text: str) -> str:
    """Return a text with the control tokens of chat templates broken, readable as before."""
    return _CONTROL.sub(lambda match: _broken(match[0]), text)


def one_line(text: str) -> str:
    """Return a text of a file on one line, short, and harmless."""
    return harmless(_BLANKS.sub(" ", text).strip()[:TITLE_CHARS])


def _broken(mark: str) -> str:
    return _APART + mark if mark == ">" else mark + _APART


def _heading(document: CitedDocument, passage: CitedPassage) -> str:
    parts = [document.name]
    parts += [one_line(one) for one in passage.heading if one_line(one) != document.name]
    place = f" (page {passage.page})" if passage.page else ""
    return " / ".join(parts) + place


def _passage(hit: Hit, url: str) -> CitedPassage:
    return CitedPassage(hit.text, hit.score, url, hit.chunk.page, tuple(hit.chunk.heading))
