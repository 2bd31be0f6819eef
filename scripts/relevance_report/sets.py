"""Judged sets: documents cut and embedded as the product does it, questions, and which answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import chunk
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.embedded_text import embedded_texts
from embedserve.services.token_budget import TokenBudget
from embedserve.types import Chunk, Vectors
from scripts.quantization_report.retrieval import read_judgements, rows_of

BUDGET = TokenBudget(prefix=80, chunk=128)
SCIFACT_DOCUMENTS, SQUAD_DOCUMENTS, SQUAD_QUESTIONS = 1000, 600, 1000


@dataclass(frozen=True)
class Document:
    """One text of a set."""

    id: str
    title: str
    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Question:
    """What is asked, and the spans that answer it."""

    text: str
    answers: tuple[DocumentSpan, ...]


@dataclass(frozen=True)
class JudgedSet:
    """A set, ready to be searched."""

    name: str
    chunks: list[tuple[str, Chunk]]
    """With the id of the document."""
    texts: list[str]
    """What is embedded for each chunk."""
    questions: list[Question]
    vectors: Vectors
    asked: Vectors
    """Of the questions."""

    def answers(self, question: Question, number: int) -> bool:
        """Tell whether a chunk answers: half of the shorter of it and an answer is in both."""
        document, one = self.chunks[number]
        for span in question.answers:
            shared = min(span.end, one.end) - max(span.start, one.start)
            shorter = min(span.end - span.start, one.end - one.start)
            if span.document == document and shared >= shorter / 2:
                return True
        return False


def build(
    name: str, documents: list[Document], questions: list[Question], encoder: Encoder
) -> JudgedSet:
    """Cut and embed a set."""
    chunks: list[tuple[str, Chunk]] = []
    texts: list[str] = []
    for document in documents:
        cut = chunk(document.text, document.kind, [], encoder.offsets, max_tokens=BUDGET.chunk)
        if cut:
            chunks += [(document.id, one) for one in cut]
            texts += embedded_texts(encoder, BUDGET, document.title, cut)
    asked = encoder.encode([question.text for question in questions])
    return JudgedSet(name, chunks, texts, questions, encoder.encode(texts), asked)


def scifact(folder: Path) -> tuple[list[Document], list[Question]]:
    """Read the test questions, the documents that answer them, and others up to a thousand."""
    judgements = read_judgements(folder / "qrels" / "test.tsv")
    documents = _documents(folder)
    random.Random(5).shuffle(documents)
    wanted = {one for gains in judgements.values() for one in gains}
    documents = sorted(documents, key=lambda one: one.id not in wanted)[:SCIFACT_DOCUMENTS]
    return documents, _questions(folder, judgements, documents)


def squad(folder: Path) -> tuple[list[Document], list[Question]]:
    """Read some paragraphs, and some of the questions about them."""
    documents = _documents(folder)
    random.Random(3).shuffle(documents)
    documents = documents[:SQUAD_DOCUMENTS]
    judgements = read_judgements(folder / "qrels" / "test.tsv")
    questions = _questions(folder, judgements, documents)
    random.Random(4).shuffle(questions)
    return documents, questions[:SQUAD_QUESTIONS]


def spans(folder: Path) -> tuple[list[Document], list[Question]]:
    """Read the corpora and questions of the chunking evaluation."""
    documents = []
    for path in sorted((folder / "corpora").glob("*.md")):
        with path.open(encoding="utf-8", newline="") as file:
            documents.append(Document(path.stem, "", file.read(), "markdown"))
    questions = [
        Question(row["question"], tuple(
            DocumentSpan(row["corpus"], one["start_index"], one["end_index"])
            for one in row["references"]
        ))
        for row in rows_of(folder / "questions.jsonl")
    ]  # fmt: skip
    return documents, questions


SETS: dict[str, tuple[str, Callable[[Path], tuple[list[Document], list[Question]]]]] = {
    "chunking_evaluation": ("chunking_evaluation", spans),
    "SciFact": ("scifact", scifact),
    "SQuAD": ("squad-dev-v1.1", squad),
}


def _documents(folder: Path) -> list[Document]:
    rows = rows_of(folder / "corpus.jsonl")
    return [Document(row["_id"], row["title"], row["text"]) for row in rows]


def _questions(
    folder: Path, judgements: dict[str, dict[str, int]], documents: list[Document]
) -> list[Question]:
    sizes = {document.id: len(document.text) for document in documents}
    found = []
    for row in rows_of(folder / "queries.jsonl"):
        gains = judgements.get(row["_id"], {})
        wanted = [one for one, gain in gains.items() if gain > 0 and one in sizes]
        if wanted:
            answers = tuple(DocumentSpan(one, 0, sizes[one]) for one in wanted)
            found.append(Question(row["text"], answers))
    return found
