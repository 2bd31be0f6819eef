"""What a search is asked and what it answers. No behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from embedserve.types import EVERY_DOCUMENT, Filter, Index, StoredChunk

if TYPE_CHECKING:  # with it comes numpy, which a command that asks does not need
    from embedserve.ranking.fusion import Standing

Mode = Literal["hybrid", "dense", "lexical"]
"""`dense`: by vectors; `lexical`: by words; `hybrid`: by both, fused."""
Fusion = Literal["sureness", "scores", "ranks"]
"""By scaled scores, each leg weighted by how sure it is of the question or alike; or by ranks."""

MAX_K = 1000
MAX_BUDGET_TOKENS = 200_000
MAX_PASSAGE_TOKENS = 4096
MAX_QUERIES = 16
SPARE = 3
"""Candidates looked at for each passage that is asked for: some of them are neighbours."""
LEAST_CHUNK_TOKENS = 24
"""Of the chunks that fill a budget, on average at the least; bounds how many are counted."""


@dataclass(frozen=True)
class SearchRequest:
    """One call. What is None is taken from the definition of the index."""

    queries: tuple[str, ...]
    """Ways to ask the same; what they find is fused."""
    k: int | None = None
    """Passages to return."""
    max_tokens: int | None = None
    """Instead of `k`: a budget that is filled with the best chunks as they are."""
    passage_tokens: int | None = None
    """How far neighbours are merged into a passage; 0: not at all."""
    mode: Mode | None = None
    fusion: Fusion | None = None
    filter: Filter = EVERY_DOCUMENT
    min_score: float | None = None
    """Hits of a smaller score are left out."""
    diversity: float | None = None
    """0..1: how much a hit loses for what it shares with better ones."""
    rerank: str | None = None
    """A reranker by name; empty: the only one that is installed."""
    rerank_timeout_s: float | None = None
    is_exact: bool = False
    """Compare every vector instead of asking the approximate index."""
    explains: bool = False
    highlights: bool = False
    """Tell in each hit where the words of the queries stand, and its best sentences."""
    timeout_s: float | None = None

    @property
    def wanted(self) -> int:
        """Return how many candidates an answer can take in at the most."""
        if self.max_tokens is not None:
            return self.max_tokens // LEAST_CHUNK_TOKENS + 1
        return (self.k or 1) * (SPARE if self.passage_tokens else 1)


@dataclass(frozen=True)
class Scores:
    """What is known of a hit, each on its own scale."""

    relevance: float
    """0..1 by what was fitted for the model, comparable between queries."""
    cosine: float | None = None
    bm25: float | None = None
    fused: float | None = None
    reranked: float | None = None
    """0..1 by the reranker; then the order is by it."""

    @property
    def shown(self) -> float:
        """Return the reranker's where there is one, else the relevance."""
        return self.relevance if self.reranked is None else self.reranked


@dataclass(frozen=True)
class MarkedSentence:
    """A sentence in a hit's text, and the same in characters of its document; ends exclusive."""

    text_start: int
    text_end: int
    start: int
    end: int


@dataclass(frozen=True)
class Highlights:
    """What of a hit's text answers the queries, by their words."""

    terms: tuple[str, ...]
    """Words of the queries that it has in some form, as they are written there."""
    spans: tuple[tuple[int, int], ...]
    """Where they stand in the text, in order, apart from each other."""
    sentences: tuple[MarkedSentence, ...]
    """Those that have most of them, best first."""


@dataclass(frozen=True)
class Hit:
    """A passage: chunks of one document that follow each other, one of them found."""

    chunk: StoredChunk
    """The best of them."""
    text: str
    start: int
    end: int
    chunks: tuple[StoredChunk, ...]
    """All of them, in order."""
    scores: Scores
    tokens: int
    """Counted where a budget was given, else about."""
    also_in: tuple[StoredChunk, ...] = ()
    """Other chunks with the text of `chunk`, in the order in which they were ingested."""
    places: int = 1
    """How many chunks have that text."""
    near_duplicates: int = 0
    """Hits that say almost the same and were left out for it."""
    legs: Mapping[str, "Standing"] = field(default_factory=dict)
    """Rank and score in each leg that found it."""
    highlights: Highlights | None = None
    """When it was asked for."""

    @property
    def score(self) -> float:
        """Return what hits are ordered by between indexes, 0..1."""
        return self.scores.shown

    @property
    def passage(self) -> StoredChunk:
        """Return the best chunk with the place of the whole passage, as citations name it."""
        return replace(self.chunk, start=self.start, end=self.end)


@dataclass(frozen=True)
class Dropped:
    """A candidate that is not among the hits, and why."""

    chunk_id: int
    reason: str


@dataclass(frozen=True)
class SearchResult:
    """Hits, best first, and how they were found."""

    hits: list[Hit]
    index: Index
    """As it was when it was asked."""
    model: str
    mode: Mode
    is_exact: bool
    """Whether every vector was compared, instead of asking the approximate index."""
    best_rejected: float | None = None
    """The highest score below `min_score`."""
    suggestions: Mapping[str, list[str]] = field(default_factory=dict)
    """For words of the query that no document has, where nothing was found."""
    warnings: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    """When it was asked to explain."""


class NamedHit(NamedTuple):
    """A hit, and the index that it is of."""

    name: str
    hit: Hit

    @property
    def tokens(self) -> int:
        """Return the hit's."""
        return self.hit.tokens


@dataclass(frozen=True)
class ManyResult:
    """What several indexes gave, by name, and the best hits of all."""

    results: Mapping[str, SearchResult]
    hits: list[NamedHit]
