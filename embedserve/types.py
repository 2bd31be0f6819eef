"""The nouns that the rooms share. No behaviour beyond what follows from the fields.

Offsets are character offsets into the text that extraction produced, end exclusive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""(count, dimensions) float32, each row of unit length."""

TokenIds = NDArray[np.int64]
"""(length,) int64, special tokens included."""

Outcome = Literal["added", "updated", "unchanged", "deleted", "skipped", "failed"]
"""What a job did to one file. `skipped`: there is nothing to index in it, and it says why;
`failed`: something went wrong with it."""

JobStatus = Literal[
    "queued", "running", "succeeded", "succeeded_with_errors", "failed", "cancelled"
]

SourceKind = Literal["folder", "upload", "url"]
"""Where a document is from."""

Lane = Literal["small", "bulk"]
"""Queries and small requests go ahead of large requests and ingestion."""

Arithmetic = Literal["f32", "bf16", "f16"]

InputType = Literal["query", "document"]  # what a text is for: a prompt goes in front of each


@dataclass(frozen=True)
class BatchTokens:
    """How many tokens one run of the engine carries at most; a longer text runs alone."""

    usual: int = 256
    bulk: int = 1024
    """Of large requests and ingestion while it is quiet; no less than `usual`."""


# -- a model, as the engine sees it -----------------------------------------------------------


GRAPH_OUTPUTS = ("sentence_embedding", "score")
"""What the graph of an embedding model or of a reranker calls its one output."""


@dataclass(frozen=True)
class EncoderSpec:
    """The files and facts that turn text into vectors; all verified before use."""

    artefact: str
    """64 hex digits that name weights, tokenizer, recipe and length together."""
    onnx_path: Path
    """Graph: input_ids, attention_mask (and token_type_ids) (batch, length) int64 ->
    sentence_embedding (batch, dimensions) float32, pooled and of unit length; of a reranker
    score (batch, 1) float32, a logit for each pair."""
    tokenizer_path: Path
    """A `tokenizer.json`; its own padding and truncation settings are not used."""
    max_tokens: int
    """Longest input, special tokens included."""
    dimensions: int
    query_prompt: str = ""
    document_prompt: str = ""
    engine: str = "onnxruntime"
    """Name in `engine.backend.BACKENDS`."""
    arithmetic: Arithmetic = "f32"
    """What the engine computes the graph's float32 operations in. Operations that the graph
    has in other types (int8, float16) stay what they are."""
    pad_token_id: int = 0
    """What an engine that pads puts behind a text; the attention mask leaves it out."""
    dynamic_group: int = 0
    """Features of a token row that share a scale where the engine rounds the inputs of 8-bit
    weights to 8 bits by itself; 0: it does not."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors that the model was trained for."""
    layer_norm_before_cut: bool = False
    """Whether vectors are standardized over their features before they are cut."""
    recipe: str = ""
    """Name of what was done to the weights, for people."""
    input_type: InputType | None = None
    """Whose prompt texts of requests get that do not say what they are; None: none."""


# -- a file on its way in ---------------------------------------------------------------------


@dataclass(frozen=True)
class FoundFile:
    """A file that a scan saw."""

    path: str
    """Absolute, symlinks resolved."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class FileProblem:
    """Why a path gave no chunks. See `errors.ExtractionError` for the fields."""

    path: str
    code: str
    stage: str
    message: str
    hint: str = ""
    is_retryable: bool = False


@dataclass(frozen=True)
class Provenance:
    """Where a document is from, and what came with it."""

    source: SourceKind = "folder"
    metadata: str = "{}"
    """JSON object of the sender's."""
    etag: str | None = None
    last_modified: str | None = None
    """What a web server said of an address, to be sent back to it."""
    stored: str = ""
    """File of an upload, below the folder of its index's uploads."""


FROM_FOLDER = Provenance()


@dataclass(frozen=True)
class KnownFile:
    """What the catalog remembers of a file, readable or not."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    problem: FileProblem | None = None
    """Set when the file's present version gave no chunks."""
    provenance: Provenance = FROM_FOLDER


@dataclass(frozen=True)
class Plan:
    """What a run has to do; pure outcome of `ingest.scan.plan`."""

    add: tuple[FoundFile, ...]
    update: tuple[FoundFile, ...]
    delete: tuple[str, ...]
    unchanged: tuple[KnownFile, ...]


@dataclass(frozen=True)
class PageSpan:
    """Where page `number` (1-based) lies in the extracted text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Extraction:
    """The text of one file, as read from exactly the bytes that `sha256` names."""

    text: str
    kind: str
    """`markdown`, `code` or `text`: how the text is to be cut."""
    title: str
    sha256: str
    size_bytes: int
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was lost or guessed on the way, in words for the user."""


@dataclass(frozen=True)
class Chunk:
    """One span of a document: `document_text[start:end] == text`."""

    ordinal: int
    text: str
    start: int
    end: int
    page: int | None = None
    heading: tuple[str, ...] = ()
    """Headings above the chunk, outermost first."""


class TokenOffsets(Protocol):
    """Tell where each token of a text begins and ends, without special tokens."""

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return one (tokens, 2) array of character offsets for each text."""
        ...


# -- at rest ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """One row of the catalog's `indexes` table."""

    id: int
    name: str
    definition: str
    """JSON of `services.definitions.IndexDefinition`."""
    model: str
    artefact: str
    """Digest of the model artefact whose vectors fill this index."""
    dimensions: int
    created_at: str
    key: int
    """What the vector index knows its present generation by."""


@dataclass(frozen=True)
class IndexCounts:
    """What the catalog holds for one index."""

    documents: int
    """Files that gave at least one chunk."""
    unreadable: int
    """Files that gave none; each has its reason."""
    chunks: int
    vectors: int
    """Chunks that have their vector. Equals `chunks` unless something is wrong."""
    pending: int
    """Changes that the vector index has not applied yet."""


@dataclass(frozen=True)
class NewDocument:
    """A file's new version, ready to replace the old one in one transaction."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    title: str
    kind: str
    chunks: tuple[Chunk, ...]
    text_hashes: tuple[str, ...]
    """sha256 of what was embedded for each chunk (prefix and chunk text)."""
    new_hashes: tuple[str, ...]
    """Those of them whose vectors come along; the catalog has the others already."""
    vectors: Vectors
    """(len(new_hashes), dimensions) float32."""
    warnings: tuple[str, ...] = ()
    """What was lost or guessed while it was read."""
    provenance: Provenance = FROM_FOLDER


@dataclass(frozen=True)
class StoredUpload:
    """A file that was sent to an index and is kept for it."""

    path: str
    """The name that the sender gave it; never a path on this machine."""
    stored: str
    """Its file, below the folder of the index's uploads."""
    size_bytes: int
    title: str
    """Empty: what the text says."""
    metadata: str
    """JSON object."""


@dataclass(frozen=True)
class DocumentFilter:
    """Which documents of an index: what meets every condition that is given."""

    paths: tuple[str, ...] = ()
    """Globs; one of them matches. `*` matches `/` too."""
    ids: tuple[int, ...] = ()
    metadata: tuple[tuple[str, str | float | bool], ...] = ()
    """Keys with the value that each has."""
    source: SourceKind | None = None


@dataclass(frozen=True)
class ListedDocument:
    """A document as it is listed; an upload that was not ingested yet has no `id`."""

    id: int | None
    path: str
    source: SourceKind
    title: str
    kind: str
    size_bytes: int
    sha256: str
    metadata: str
    """JSON object."""
    indexed_at: str
    chunks: int
    is_pending: bool
    """Whether what was sent last still waits for its job."""
    problem: FileProblem | None = None


@dataclass(frozen=True)
class StoredChunk:
    """A live chunk joined with its document."""

    id: int
    text: str
    start: int
    end: int
    page: int | None
    heading: tuple[str, ...]
    document_id: int
    path: str
    title: str
    metadata: str = "{}"
    """JSON object that came with the document."""


@dataclass(frozen=True)
class ChunkVectors:
    """A run of stored chunks, in order of id."""

    ids: NDArray[np.int64]
    vectors: Vectors


@dataclass(frozen=True)
class PendingChanges:
    """Changes that the vector index has yet to apply, oldest first."""

    up_to: int
    """Sequence number of the last change in this batch; acknowledge with it."""
    upserts: ChunkVectors
    deletes: tuple[int, ...]


# -- jobs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileResult:
    """What a job did to one file."""

    path: str
    outcome: Outcome
    chunks: int = 0
    problem: FileProblem | None = None
    warnings: tuple[str, ...] = ()
    """What was lost or guessed while the file was read, though it gave chunks."""


@dataclass(frozen=True)
class Work:
    """What a file, or a part of one, added to the sums of its job."""

    bytes_read: int = 0
    chunks_embedded: int = 0
    tokens_embedded: int = 0


@dataclass(frozen=True)
class Job:
    """One row of the catalog's `jobs` table, with its counts."""

    id: str
    index: str
    path: str
    status: JobStatus
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    error: str | None = None
    files_total: int | None = None
    """Files to look at; unknown until the scan is done."""
    chunks_embedded: int = 0
    """Chunks whose vector had to be computed."""
    tokens_embedded: int = 0
    chunks: int = 0
    """Of the files that the job has brought in."""
    bytes_done: int = 0
    bytes_total: int | None = None
    """Of the files that have to be read, those that are done included; unknown before the scan."""
    retry_of: str | None = None
    """The job whose failed files this one is about."""
    counts: dict[str, int] = field(default_factory=dict)
    """Files by outcome."""


# -- search -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoredId:
    """A chunk id with its cosine similarity to the query, -1..1."""

    id: int
    score: float
