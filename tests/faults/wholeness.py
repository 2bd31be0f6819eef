"""Whether a home is as if nothing had ever happened to it. Asks; puts nothing right."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.chunk import prefix
from embedserve.ingest.scratch import Scratch
from embedserve.store.catalog import Catalog
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess
from embedserve.store.rows import Row
from embedserve.types import EVERY_DOCUMENT, Index, StoredChunk
from tests.live import LiveServer

SAME_VECTOR_SCORE = 0.9999
"""A twin has the same vector and may be found instead; float32 rounding on both sides."""
HITS = 10
QUESTIONS_AT_ONCE = 4
CALL_S = 30
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"

CHUNKS = """
SELECT d.path, c.ordinal, c.span_start, c.span_end, c.page, c.heading, c.text_hash, c.text, v.vector
FROM chunks c JOIN documents d ON d.id = c.document_id JOIN indexes i ON i.id = c.index_id
LEFT JOIN vectors v ON v.artefact = i.artefact AND v.text_hash = c.text_hash
WHERE c.index_id = ? ORDER BY d.path, c.ordinal
"""

# Each finds rows that no home at rest has.
TRACES = {
    "a job that has not ended": "SELECT id FROM jobs WHERE status IN ('queued', 'running')",
    "an ended job that somebody runs": "SELECT id FROM jobs WHERE runner IS NOT NULL",
    "an ended job without an end": "SELECT id FROM jobs WHERE finished_at IS NULL",
    "a failed job": "SELECT id, error FROM jobs WHERE status = 'failed'",
    "a count below none": "SELECT job_id FROM job_counts WHERE files < 0",
    "files of a job that are not as many as it counts": """
        SELECT f.job_id FROM (SELECT job_id, outcome, count(*) files FROM job_files GROUP BY 1, 2) f
        LEFT JOIN job_counts c ON c.job_id = f.job_id AND c.outcome = f.outcome
        WHERE c.files IS NOT f.files""",
    "a change for the vector index": "SELECT chunk_id FROM changes",
    "a generation beside the one that serves": "SELECT key FROM generations"
    " WHERE status <> 'serving' OR index_id NOT IN (SELECT id FROM indexes)",
    "a generation to be dropped": "SELECT key FROM dropped_generations",
    "a model to come": "SELECT index_id FROM model_changes",
    "a hash to come": "SELECT chunk_id FROM new_hashes",
    "an upload that waits for a job": "SELECT path FROM uploads WHERE job_id IS NOT NULL",
    "an upload without its document": """
        SELECT path FROM uploads u WHERE NOT EXISTS (
          SELECT 1 FROM documents d WHERE d.index_id = u.index_id AND d.path = u.path)""",
    "a document that will be read again": "SELECT path, problem_code FROM documents"
    " WHERE problem_is_retryable",
    "a document with neither chunks nor a problem": """
        SELECT path FROM documents d WHERE problem_code IS NULL
        AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.document_id = d.id)""",
    "chunks of a document that cannot be read": """
        SELECT path FROM documents d WHERE problem_code IS NOT NULL
        AND EXISTS (SELECT 1 FROM chunks c WHERE c.document_id = d.id)""",
    "a gap between chunks": """
        SELECT document_id FROM chunks GROUP BY document_id
        HAVING min(ordinal) <> 0 OR max(ordinal) <> count(*) - 1""",
}
DRAFT_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%draft%'"


@dataclass(frozen=True)
class Held:
    """What the catalog holds of one document, apart from ids and times."""

    facts: Row
    problem: str | None
    chunks: tuple[Row, ...]


def contents(home: Path, index_name: str) -> dict[str, Held]:
    """Map path to what the catalog of a stopped server holds of it."""
    chunks: dict[str, list[Row]] = {}
    with Catalog(home / "catalog.sqlite3") as catalog:
        index = catalog.indexes.get(index_name)
        listed = catalog.uploads.page(index.id, EVERY_DOCUMENT, limit=-1)
    with closing(sqlite3.connect(home / "catalog.sqlite3")) as connection:
        for path, *chunk in connection.execute(CHUNKS, (index.id,)):
            chunks.setdefault(path, []).append(tuple(chunk))
    held = {
        one.path: Held(
            (one.source, one.title, one.kind, one.size_bytes, one.sha256, one.metadata),
            one.problem.code if one.problem else None,
            tuple(chunks.pop(one.path, ())),
        )
        for one in listed
    }
    assert len(held) == len(listed), "a path is listed twice"
    assert not chunks, "chunks of a document that is not listed"
    return held


def differences(one: dict[str, Held], other: dict[str, Held]) -> list[str]:
    """Say of each document in what the two differ."""
    found = [f"only in one: {path}" for path in sorted(one.keys() ^ other.keys())]
    for path in sorted(one.keys() & other.keys()):
        a, b = one[path], other[path]
        if (a.facts, a.problem) != (b.facts, b.problem):
            found.append(f"{path}: {(*a.facts, a.problem)} and {(*b.facts, b.problem)}")
        elif a.chunks != b.chunks:
            place = next(
                (
                    n
                    for n, pair in enumerate(zip(a.chunks, b.chunks, strict=False))
                    if len({*pair}) == 2
                ),
                -1,
            )
            counts = f"{len(a.chunks)} and {len(b.chunks)} chunks"
            found.append(f"{path}: {counts}, the first that differs is {place}")
    return found


def traces(home: Path) -> list[str]:
    """Say what is left in a stopped server's home of work that was cut off."""
    with Catalog(home / "catalog.sqlite3") as catalog:
        found = catalog.integrity.file_problems()
        kept = {path for names in catalog.uploads.stored().values() for path in names}
    with closing(sqlite3.connect(home / "catalog.sqlite3")) as connection:
        drafts = [row[0] for row in connection.execute(DRAFT_TABLES)]
        questions = TRACES | {f"a row of {name}": f"SELECT * FROM {name}" for name in drafts}
        for what, question in questions.items():
            found += [f"{what}: {row}" for row in connection.execute(question).fetchmany(5)]
    lying = {path.name for path in (home / "uploads").rglob("*") if path.is_file()}
    found += [
        f"an upload's file that should not be, or is not there: {name}" for name in lying ^ kept
    ]
    found += [f"a folder of a worker that loads: {path}" for path in Scratch(home).left_over()]
    found += [f"a fetched file: {path}" for path in (home / "fetched").rglob("*") if path.is_file()]
    return found


def vector_index_faults(home: Path, index_name: str) -> list[str]:
    """Compare all that a stopped server's Chroma folder holds with the catalog."""
    with (
        _chroma(home) as url,
        Catalog(home / "catalog.sqlite3") as catalog,
        closing(
            ChromaIndex(lambda: url, timeout_s=CALL_S, prefix=f"embedserve-{catalog.id}")
        ) as vectors,
    ):
        index = catalog.indexes.get(index_name)
        named = {one["name"] for one in httpx.get(url + COLLECTIONS, timeout=CALL_S).json()}
        keys = {f"embedserve-{catalog.id}-{other.key}" for other in catalog.indexes.all()}
        found = [f"collection {name}" for name in named ^ keys]
        stored, wanted = vectors.ids(index.key), ids_to_be_stored(catalog, index)
        found += [f"id {id_} on one side only" for id_ in np.setxor1d(stored, wanted).tolist()]
        every = catalog.chunks.vectors_of(index, wanted.tolist())
        for id_, vector in zip(every.ids.tolist(), every.vectors, strict=True):
            [*hits] = vectors.search(index.key, vector, count=HITS)
            if not hits or hits[0].score < SAME_VECTOR_SCORE:
                found.append(f"chunk {id_} does not find itself: {hits[:1]}")
    return found


def ids_to_be_stored(catalog: Catalog, index: Index) -> NDArray[np.int64]:
    """Return which chunks have to stand in the vector index, by the catalog's word, ascending."""
    return catalog.chunks.representatives(index.id)


def chunks_not_found(server: LiveServer, index_name: str) -> list[str]:
    """Ask a running server for each chunk by the text that was embedded for it.

    That is title and headings, then its own text; the model of the index has no prompts. So the
    chunk, or one of the same text, comes back with a cosine of one.
    """
    with Catalog(server.home / "catalog.sqlite3") as catalog:
        index = catalog.indexes.get(index_name)
        chunks = catalog.chunks.by_id(index.id, catalog.chunks.ids(index.id).tolist())

    def problem(chunk: StoredChunk) -> str:
        question = prefix(chunk.title, chunk.heading) + chunk.text
        how = {"k": HITS, "mode": "dense", "passage_tokens": 0, "explain": True}
        answer = server.ask(index_name, query=question, **how)
        hits = answer["hits"]
        same = [hit for hit in hits if _has(hit, chunk)]
        if same and same[0]["scores"]["cosine"] >= SAME_VECTOR_SCORE:
            return ""
        # Found, and left out for a better one that says nearly the same.
        if {"id": str(chunk.id), "reason": "near duplicate"} in answer["dropped"]:
            return ""
        instead = [(hit["id"], hit["scores"]["cosine"], hit["text"]) for hit in hits[:3]]
        return f"chunk {chunk.id} of {chunk.path}, {chunk.text!r}: {instead}"

    with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
        return [found for found in pool.map(problem, chunks.values()) if found]


def _has(hit: dict[str, Any], chunk: StoredChunk) -> bool:
    """Tell whether a hit is a chunk or has what was embedded for it."""
    places = [hit["id"], *(place["id"] for place in hit["also_in"])]
    return hit["text"] == chunk.text or str(chunk.id) in places


@contextmanager
def _chroma(home: Path) -> Iterator[str]:
    """Serve a stopped server's Chroma folder and give its address."""
    chroma = ChromaProcess(home / "chroma", home / "chroma.log", timeout_s=CALL_S)
    chroma.start()
    try:
        yield chroma.url
    finally:
        chroma.stop()
