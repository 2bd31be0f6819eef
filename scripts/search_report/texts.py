"""Real documents and questions, and variants where there are too few of them.

A variant has sentences of real documents of one source, drawn at random: its words and their
frequencies are real, what it says is not.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from embedserve.services.evaluation_sets import read_set

SOURCES = ("scifact", "squad-dev-v1.1", "tree-powershell-docs", "docs-rust-book", "chunking")
QUESTION_SETS = ("scifact", "squad-dev-v1.1", "chunking_evaluation")
VARIANT_SENTENCES = 400
"""Of a variant: some hundred chunks."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_LEAST_CHARS, _MOST_CHARS = 30, 600
"""Of a sentence that a variant may have."""


@dataclass(frozen=True)
class Document:
    """One text to be indexed."""

    path: str
    title: str
    text: str
    kind: str = "text"
    is_variant: bool = False

    @property
    def source(self) -> str:
        """Return where it is from: the first part of its path."""
        return self.path.partition("/")[0]


def documents(data: Path) -> Iterator[Document]:
    """Give all real documents in an order that is mixed and always the same, then variants."""
    real = [*_judged(data), *_markdown(data)]
    random.Random(1).shuffle(real)
    return chain(real, _variants(real))


def questions(data: Path) -> list[str]:
    """Return distinct questions that people asked about these texts, mixed, always the same."""
    asked: dict[str, None] = {}
    for name in QUESTION_SETS:
        asked |= dict.fromkeys(query.text for query in read_set(data / name).queries)
    found = list(asked)
    random.Random(2).shuffle(found)
    return found


def _judged(data: Path) -> Iterator[Document]:
    for name in ("scifact", "squad-dev-v1.1"):
        for one in read_set(data / name).documents:
            yield Document(f"{name}/{one.id}.txt", one.title, one.text)


def _markdown(data: Path) -> Iterator[Document]:
    folders = (
        ("tree-powershell-docs", data / "tree-powershell-docs" / "files"),
        ("docs-rust-book", data / "docs-rust-book" / "files"),
        ("chunking", data / "chunking_evaluation" / "corpora"),
    )
    for name, folder in folders:
        for path in sorted(folder.rglob("*.md")):
            place = f"{name}/{path.relative_to(folder)}"
            text = path.read_text(encoding="utf-8", errors="replace")
            yield Document(place, path.stem, text, "markdown")


def _variants(real: list[Document]) -> Iterator[Document]:
    """Give documents without end, of each source as many as it has text."""
    chance = random.Random(3)
    sentences: dict[str, list[str]] = {source: [] for source in SOURCES}
    for document in real:
        found = (part.strip() for part in _SENTENCE.split(document.text))
        sentences[document.source] += [
            part for part in found if _LEAST_CHARS <= len(part) <= _MOST_CHARS
        ]
    sources = list(sentences)
    shares = [len(sentences[source]) for source in sources]
    number = 0
    while True:
        [source] = chance.choices(sources, shares)
        drawn = chance.sample(sentences[source], min(VARIANT_SENTENCES, len(sentences[source])))
        text = "\n\n".join(" ".join(drawn[at : at + 5]) for at in range(0, len(drawn), 5))
        yield Document(f"{source}/variant-{number}.txt", f"Variant {number}", text, is_variant=True)
        number += 1


def metadata_of(document: Document) -> str:
    """Return the JSON that comes with a document: `share` is 0 to 99, each as often."""
    share = random.Random(document.path).randrange(100)
    return json.dumps({"share": share, "source": document.source, "variant": document.is_variant})
