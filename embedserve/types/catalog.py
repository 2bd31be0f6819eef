"""What is at rest in the catalog: indexes, documents, chunks, jobs. And what a search finds."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from embedserve.types.file import (
    FROM_FOLDER,
    Chunk,
    FileProblem,
    LineSpan,
    Provenance,
    SourceKind,
)
from embedserve.types.model import Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outcome = Literal["added", "updated", "unchanged", "deleted", "skipped", "failed"]
"""What a job did to one file. `skipped`: there is nothing to index in it, and it says why;
`failed`: something went wrong with it."""

JobStatus = Literal[
    "queued", "running", "succeeded", "succeeded_with_errors", "failed", "cancelled"
]

JobKind = Literal["ingest", "reembed"]

DocumentStatus = Literal["indexed", "pending", "unreadable"]
"""`pending`: what was sent last waits for its job; `unreadable`: it gave no chunks."""


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
    texts: int
    """Distinct ones among the chunks: what the vector index is to hold."""
    pending: int
    """Changes that the vector index has not applied yet."""


@dataclass(frozen=True)
class Draft:
    """What is staged of a document that is still being cut and embedded: no query sees it."""

    id: int
    chunks: int
    chars: int
    """Of its text from the beginning, which is what these chunks are of."""


@dataclass(frozen=True)
class EmbeddedChunks:
    """Some chunks of a document, in order, and the vectors that the catalog lacks for them."""

    chunks: tuple[Chunk, ...]
    text_hashes: tuple[str, ...]
    new_hashes: tuple[str, ...]
    vectors: Vectors
    """As in `NewDocument`."""
    end: int
    """Characters of the text from its beginning that are cut now."""


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
    draft: Draft | None = None
    """Where the chunks are staged that come before `chunks`."""


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

    @property
    def status(self) -> DocumentStatus:
        """Say what has become of it; store/document_filter.py says the same in SQL."""
        if self.is_pending:
            return "pending"
        return "unreadable" if self.problem else "indexed"


@dataclass(frozen=True)
class StoredChunk:
    """A live chunk joined with its document."""

    id: int
    text: str
    start: int
    end: int
    page: int | None
    heading: tuple[str, ...]
    lines: LineSpan | None
    """None: it was cut before they were kept."""
    ordinal: int
    """Which of its document's chunks it is, counted from 0."""
    document_id: int
    path: str
    title: str
    metadata: str = "{}"
    """JSON object that came with the document."""
    sha256: str = ""
    """Of the document's file."""


@dataclass(frozen=True)
class StoredText:
    """A text of an index with the live chunks that have it, in order of id."""

    chunks: tuple[StoredChunk, ...]
    """The first of them."""
    places: int
    """How many there are."""

    @property
    def id(self) -> int:
        """Return the id of the first."""
        return self.chunks[0].id


@dataclass(frozen=True)
class ChunkVectors:
    """A run of stored chunks, in order of id."""

    ids: "NDArray[np.int64]"
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
    kind: JobKind = "ingest"
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
class SqlCondition:
    """An expression of SQL that is 0 or 1, from whoever checked its parts.

    Where chunks are meant it is over the columns of `c` (chunks) and `d` (their documents).
    """

    sql: str
    values: tuple[str | int | float, ...] = ()
    """For its question marks."""
