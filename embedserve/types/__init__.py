"""The nouns that the rooms share. No behaviour beyond what follows from the fields.

Import them from here, whichever of the modules they are in.
"""

from embedserve.types.catalog import (
    ChunkVectors,
    FileResult,
    Index,
    IndexCounts,
    Job,
    JobKind,
    JobStatus,
    NewDocument,
    Outcome,
    PendingChanges,
    ScoredId,
    StoredChunk,
)
from embedserve.types.file import (
    Chunk,
    Extraction,
    FileProblem,
    FoundFile,
    KnownFile,
    MemberSpan,
    PageSpan,
    Plan,
)
from embedserve.types.model import (
    GRAPH_OUTPUTS,
    Arithmetic,
    BatchTokens,
    EncoderSpec,
    InputType,
    Lane,
    ModelKind,
    TokenIds,
    TokenOffsets,
    Vectors,
)

__all__ = [
    "GRAPH_OUTPUTS",
    "Arithmetic",
    "BatchTokens",
    "Chunk",
    "ChunkVectors",
    "EncoderSpec",
    "Extraction",
    "FileProblem",
    "FileResult",
    "FoundFile",
    "Index",
    "IndexCounts",
    "InputType",
    "Job",
    "JobKind",
    "JobStatus",
    "KnownFile",
    "Lane",
    "MemberSpan",
    "ModelKind",
    "NewDocument",
    "Outcome",
    "PageSpan",
    "PendingChanges",
    "Plan",
    "ScoredId",
    "StoredChunk",
    "TokenIds",
    "TokenOffsets",
    "Vectors",
]
