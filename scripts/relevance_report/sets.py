"""Judged sets: documents cut and embedded as the product does it, questions, and which answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import chunk
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.embedded_text import embedded_texts
from embedserve.services.evaluation_sets import JudgedSet as ReadSet
from embedserve.services.evaluation_sets import SetDocument, read_set
from embedserve.services.judgements import is_same
from embedserve.services.token_budget import TokenBudget
from embedserve.types import Chunk, Vectors

BUDGET = TokenBudget(prefix=80, chunk=128)
SCIFACT_DOCUMENTS, SQUAD_DOCUMENTS, SQUAD_QUESTIONS = 1000, 600, 1000


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
        place = DocumentSpan(document, one.start, one.end)
        return any(is_same(place, span) for span in question.answers)


def build(
    name: str, documents: list[SetDocument], questions: list[Question], encoder: Encoder
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


def scifact(folder: Path) -> tuple[list[SetDocument], list[Question]]:
    """Read the test questions, the documents that answer them, and others up to a thousand."""
    found = read_set(folder)
    documents = list(found.documents)
    random.Random(5).shuffle(documents)
    wanted = {one for query in found.queries for one in query.gains}
    documents = sorted(documents, key=lambda one: one.id not in wanted)[:SCIFACT_DOCUMENTS]
    return documents, _questions(found, documents)


def squad(folder: Path) -> tuple[list[SetDocument], list[Question]]:
    """Read some paragraphs, and some of the questions about them."""
    found = read_set(folder)
    documents = list(found.documents)
    random.Random(3).shuffle(documents)
    documents = documents[:SQUAD_DOCUMENTS]
    questions = _questions(found, documents)
    random.Random(4).shuffle(questions)
    return documents, questions[:SQUAD_QUESTIONS]


def spans(folder: Path) -> tuple[list[SetDocument], list[Question]]:
    """Read the corpora and questions of the chunking evaluation."""
    found = read_set(folder)
    return list(found.documents), [Question(one.text, one.spans) for one in found.queries]


SETS: dict[str, tuple[str, Callable[[Path], tuple[list[SetDocument], list[Question]]]]] = {
    "chunking_evaluation": ("chunking_evaluation", spans),
    "SciFact": ("scifact", scifact),
    "SQuAD": ("squad-dev-v1.1", squad),
}


def _questions(found: ReadSet, documents: list[SetDocument]) -> list[Question]:
    sizes = {document.id: len(document.text) for document in documents}
    questions = []
    for query in found.queries:
        wanted = [one for one, gain in query.gains.items() if gain > 0 and one in sizes]
        if wanted:
            answers = tuple(DocumentSpan(one, 0, sizes[one]) for one in wanted)
            questions.append(Question(query.text, answers))
    return questions
