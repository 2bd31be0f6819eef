"""How nouns become columns and back: vectors, problems, lists of ids."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import CatalogError
from embedserve.types import ChunkVectors, FileProblem, Index, LineSpan, ScoredIds

PROBLEM_COLUMNS = "problem_code, problem_stage, problem_message, problem_hint, problem_is_retryable"

BYTES_PER_FLOAT = 4
UNIT_SLACK = 1e-3
"""How far a vector's length may be from one: engines round to bfloat16 at worst."""

NO_HITS = ScoredIds(np.empty(0, np.int64), np.empty(0))

Row = tuple[object, ...]


def to_blob(vector: NDArray[np.float32]) -> bytes:
    """Pack one (dimensions,) float32 vector as little-endian bytes."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def from_blob(blob: bytes) -> NDArray[np.float32]:
    """Unpack one vector: (dimensions,) float32."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)


def are_sound(blobs: Sequence[bytes], dimensions: int) -> NDArray[np.bool_]:
    """Tell of each vector of the right size whether it is finite and of unit length."""
    flat = np.frombuffer(b"".join(blobs), dtype="<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(flat.reshape(len(blobs), dimensions), axis=1)
        is_sound: NDArray[np.bool_] = np.abs(lengths - 1) <= UNIT_SLACK  # False for NaN
    return is_sound


def chunk_vectors(rows: Sequence[tuple[int, bytes]], index: Index) -> ChunkVectors:
    """Turn rows of (chunk id, vector) into arrays; raise CatalogError for a damaged vector."""
    size_bytes = index.dimensions * BYTES_PER_FLOAT
    for chunk_id, blob in rows:
        if len(blob) != size_bytes:
            raise CatalogError(
                f"Index `{index.name}` has a damaged vector in the catalog (chunk {chunk_id}: "
                f"{len(blob)} bytes instead of {size_bytes}). Delete the index and ingest its "
                "documents again, or restore the catalog from a backup."
            )
    ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    flat = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
    vectors = flat.astype(np.float32, copy=False).reshape(len(rows), index.dimensions)
    return ChunkVectors(ids, vectors)


def id_list(ids: Iterable[int]) -> str:
    """Encode ids for `IN (SELECT value FROM json_each(?))`: one variable, however many ids.

    SQLite caps the variables of one statement; a JSON list has no such cap.
    """
    return json.dumps([int(number) for number in ids])


def line_row(lines: LineSpan | None) -> Row:
    """Give the values of `line_start` and `line_end`, both None where they are not known."""
    return (lines.start, lines.end) if lines else (None, None)


def read_lines(start: int | None, end: int | None) -> LineSpan | None:
    """Read the values of `line_start` and `line_end` back."""
    return None if start is None or end is None else LineSpan(start, end)


def problem_row(problem: FileProblem | None) -> Row:
    """Give the values of PROBLEM_COLUMNS, all None without a problem."""
    if problem is None:
        return (None,) * 5
    return (
        problem.code,
        problem.stage,
        problem.message,
        problem.hint,
        int(problem.is_retryable),
    )


def read_problem(path: str, columns: Sequence[object]) -> FileProblem | None:
    """Read the values of PROBLEM_COLUMNS back."""
    code, stage, message, hint, is_retryable = columns
    if code is None:
        return None
    return FileProblem(path, str(code), str(stage), str(message), str(hint), bool(is_retryable))
