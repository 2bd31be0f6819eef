"""What OpenAI's clients ask of files and vector stores. What they send beyond it is an error."""

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from embedserve.errors import InvalidRequestError
from embedserve.services.definitions import Chunking
from embedserve.services.filters import parse_filter
from embedserve.services.search_request import Mode, SearchRequest
from embedserve.services.sent_files import Attachment
from embedserve.types import EVERY_DOCUMENT, Filter

MAX_ATTRIBUTES = 16
Attributes = dict[str, str | float | bool]


class Body(BaseModel):
    """A body; an unknown field is an error, so that nothing that was meant is left out."""

    model_config = ConfigDict(extra="forbid")


class StaticChunks(Body):
    """How long chunks are."""

    max_chunk_size_tokens: int = Field(
        ge=16, le=8192, description="In tokens of the index's model, which may allow less."
    )
    chunk_overlap_tokens: int = Field(
        default=0, ge=0, description="Chunks do not overlap here: hits are joined with neighbours."
    )


class ChunkingStrategy(Body):
    """How documents are cut; `auto` is the server's own way."""

    type: Literal["auto", "static"]
    static: StaticChunks | None = None

    def chunking(self) -> Chunking:
        """Return it as an index has it."""
        if self.type == "static" and self.static is None:
            raise InvalidRequestError("`chunking_strategy.static` is missing.")
        return Chunking(max_tokens=self.static.max_chunk_size_tokens if self.static else None)


class FileBody(Body):
    """A file for a vector store."""

    file_id: str
    attributes: Attributes | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    chunking_strategy: ChunkingStrategy | None = Field(
        default=None, description="`auto`, or left out: files are cut as their vector store says."
    )

    def attachment(self) -> Attachment:
        """Return what the service takes."""
        refuse_chunking(self.chunking_strategy)
        return Attachment(self.file_id, self.attributes)


class AttributesBody(Body):
    """What is to be said of a file."""

    attributes: Attributes = Field(max_length=MAX_ATTRIBUTES)


class BatchBody(Body):
    """Several files for a vector store."""

    file_ids: list[str] | None = None
    files: list[FileBody] | None = None
    attributes: Attributes | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    chunking_strategy: ChunkingStrategy | None = None

    def attachments(self) -> list[Attachment]:
        """Return what the service takes; raise InvalidRequestError for both ways at once."""
        if (self.file_ids is None) == (self.files is None):
            raise InvalidRequestError("Send `file_ids`, or `files`.")
        refuse_chunking(self.chunking_strategy)
        if self.files is not None:
            return [file.attachment() for file in self.files]
        return [Attachment(one, self.attributes) for one in self.file_ids or ()]


class StoreBody(Body):
    """A vector store to make."""

    name: str | None = Field(default=None, max_length=200)
    description: str | None = Field(default=None, max_length=1000)
    file_ids: list[str] = []
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    expires_after: dict[str, Any] | None = None
    chunking_strategy: ChunkingStrategy | None = None


class StoreChange(Body):
    """What is to be another in a vector store."""

    name: str | None = Field(default=None, max_length=200)
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    expires_after: dict[str, Any] | None = None


class HybridSearch(Body):
    """By vectors, by words, or by both; how much each weighs is found out for each question."""

    embedding_weight: float = Field(ge=0)
    text_weight: float = Field(ge=0)

    def mode(self) -> Mode:
        """Return the way to search."""
        if not self.embedding_weight and not self.text_weight:
            raise InvalidRequestError("One of both weights must be larger than 0.")
        if not self.text_weight:
            return "dense"
        return "hybrid" if self.embedding_weight else "lexical"


class RankingOptions(Body):
    """How results are ordered, and which are too weak."""

    ranker: str | None = Field(
        default=None, description="The name of a reranker; `auto`, `none` and OpenAI's: without."
    )
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    hybrid_search: HybridSearch | None = None


class SearchBody(Body):
    """What to look for."""

    query: str | list[str]
    max_num_results: int = Field(default=10, ge=1, le=50)
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = Field(default=None, description="Queries are taken as they are.")

    def request(self, timeout_s: float | None) -> SearchRequest:
        """Return what the service is asked."""
        options = self.ranking_options or RankingOptions()
        return SearchRequest(
            tuple([self.query] if isinstance(self.query, str) else self.query),
            k=self.max_num_results,
            mode=options.hybrid_search.mode() if options.hybrid_search else None,
            filter=filter_of(self.filters) if self.filters else EVERY_DOCUMENT,
            min_score=options.score_threshold,
            rerank=_reranker(options.ranker),
            timeout_s=timeout_s,
        )


class PageQuery(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)
    after: str = Field(default="", description="The id of the last of the former page.")
    order: Literal["asc", "desc"] | None = None
    purpose: str = ""
    filter: Literal["in_progress", "completed", "failed", "cancelled"] | None = None


Page = Annotated[PageQuery, Query()]


def refuse_chunking(strategy: ChunkingStrategy | None) -> None:
    """Raise InvalidRequestError for a strategy that is one file's own."""
    if strategy is not None and strategy.type != "auto":
        raise InvalidRequestError(
            "All files of a vector store are cut alike: give `chunking_strategy` when you create "
            "it, and leave it out here.",
            field="chunking_strategy",
        )


def refuse_expiry(expires_after: object) -> None:
    """Raise InvalidRequestError where something is to go by itself."""
    if expires_after is not None:
        raise InvalidRequestError(
            "`expires_after` cannot be kept: nothing here goes by itself. Leave it out.",
            field="expires_after",
        )


def _reranker(name: str | None) -> str | None:
    is_theirs = name is None or name in ("auto", "none") or name.startswith("default-")
    return None if is_theirs else name


def filter_of(given: object) -> Filter:
    """Translate OpenAI's filter; raise InvalidRequestError that says what is wrong."""
    return parse_filter(_translated(given, 0))


_COMPARISONS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains")
_DEEPEST = 8


def _translated(given: object, depth: int) -> dict[str, Any]:
    if not isinstance(given, dict) or depth > _DEEPEST:
        raise InvalidRequestError(
            'A filter is an object such as {"type": "eq", "key": "team", "value": "sales"}, '
            f"inside of each other {_DEEPEST} deep at most.",
            field="filters",
        )
    kind = given.get("type")
    if kind in ("and", "or"):
        parts = given.get("filters")
        if not isinstance(parts, list) or not parts:
            raise InvalidRequestError(f"A filter `{kind}` needs `filters`.", field="filters")
        return {kind: [_translated(part, depth + 1) for part in parts]}
    if kind not in _COMPARISONS or not isinstance(given.get("key"), str):
        known = ", ".join(f"`{one}`" for one in (*_COMPARISONS, "and", "or"))
        raise InvalidRequestError(
            f"A filter has a `type` of {known}, and `key` and `value`.", field="filters"
        )
    return {"metadata": {given["key"]: {kind: given.get("value")}}}
