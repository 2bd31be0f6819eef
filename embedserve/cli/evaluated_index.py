"""A judged set in an index: sent as documents, ingested by jobs, asked over HTTP, as users do."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from embedserve.cli.client import Client, Json
from embedserve.cli.job_display import POLL_S, follow_job
from embedserve.errors import EmbedserveError
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.evaluation import FoundPassage, Search
from embedserve.services.evaluation_sets import JudgedSet, SetDocument
from embedserve.services.search_request import SearchRequest

BATCH_DOCUMENTS, BATCH_CHARS = 500, 4_000_000
"""Of one request: half of what the settings allow by default."""
NAME_CHARS = 900
READY_S = 600.0
"""Seconds that the vector index may take for what the catalog has already."""
ENDINGS = {"text": ".txt", "markdown": ".md"}


@dataclass(frozen=True)
class EvaluatedIndex:
    """An index that holds a set, and what made it."""

    name: str
    model: str
    recipe: str
    engine: str
    chunk_tokens: int
    chunks: int
    names: Mapping[str, str]
    """Id of the set's document by the path that it has in the index."""


def prepare(
    client: Client, judged: JudgedSet, model: str, chunk_tokens: int, *, is_quiet: bool
) -> EvaluatedIndex:
    """Return an index with the documents of a set; one that has them already is taken as it is.

    Raises ModelNotFoundError, and EmbedserveError where documents could not be ingested.
    """
    facts = client.post("api", "show", body={"model": model})["embedserve"]
    identity = f"{judged.digest[:8]}-{facts['artefact'][:8]}-{chunk_tokens}"
    name = f"eval-{_slug(judged.name)}-{identity}"
    names = {path_of(one): one.id for one in judged.documents}
    client.put("indexes", name, body={"model": model, "chunking": {"max_tokens": chunk_tokens}})
    counts = client.get("indexes", name)["counts"]
    if counts["documents"] + counts["unreadable"] < len(names):
        for batch in _batches(judged.documents):
            _send(client, name, batch, is_quiet=is_quiet)
    counts = _when_ready(client, name)
    if counts["unreadable"] or counts["documents"] != len(names):
        raise EmbedserveError(
            f"Index `{name}` has {counts['documents']} of the {len(names)} documents of "
            f"`{judged.name}`. `embedserve documents list --status unreadable -i {name}` says why."
        )
    return EvaluatedIndex(
        name,
        facts["name"],
        facts["recipe"],
        facts["engine"],
        chunk_tokens,
        counts["chunks"],
        names,
    )


def search_of(client: Client, index: str, names: Mapping[str, str] | None = None) -> Search:
    """Return what asks the index's query route; paths become ids where `names` has them."""

    def search(request: SearchRequest) -> Sequence[FoundPassage]:
        reply = client.post("indexes", index, "query", body=body_of(request))
        return [passage_of(hit, names or {}) for hit in reply["hits"]]

    return search


def body_of(request: SearchRequest) -> Json:
    """Return a request as the query route takes it; what it leaves open stays so."""
    asked: Json = {
        "queries": list(request.queries),
        "k": request.k,
        "max_tokens": request.max_tokens,
        "passage_tokens": request.passage_tokens,
        "mode": request.mode,
        "fusion": request.fusion,
        "diversity": request.diversity,
        "highlight": request.highlights,
        "rerank": True if request.rerank == "" else request.rerank,
    }
    return {key: value for key, value in asked.items() if value is not None}


def passage_of(hit: Json, names: Mapping[str, str]) -> FoundPassage:
    """Read a hit of the query route."""
    places = (_place(one, names) for one in (hit, *hit["also_in"]))
    return FoundPassage(tuple(places), hit["text"], hit["tokens"])


def path_of(document: SetDocument) -> str:
    """Return what a document is listed under: its id, as a name that any id fits."""
    name = quote(document.id, safe=" ", errors="surrogatepass")
    if len(name) > NAME_CHARS:
        name = hashlib.sha256(name.encode()).hexdigest()
    return name + ENDINGS[document.kind]


def _place(one: Json, names: Mapping[str, str]) -> DocumentSpan:
    path = one["document"]["path"]
    return DocumentSpan(names.get(path, path), one["start"], one["end"])


def _send(client: Client, index: str, batch: Sequence[SetDocument], *, is_quiet: bool) -> None:
    texts = [{"name": path_of(one), "title": one.title, "text": one.text} for one in batch]
    job = client.post("indexes", index, "documents", body={"documents": texts})["job"]
    ended = follow_job(client, job["id"], is_quiet=is_quiet)
    if ended["status"] in ("failed", "cancelled"):
        raise EmbedserveError(f"Job {job['id']} {ended['status']}. {ended['error'] or ''}".strip())


def _batches(documents: Sequence[SetDocument]) -> Iterator[list[SetDocument]]:
    batch: list[SetDocument] = []
    chars = 0
    for one in documents:
        if batch and (len(batch) == BATCH_DOCUMENTS or chars + len(one.text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(one)
        chars += len(one.text)
    if batch:
        yield batch


def _when_ready(client: Client, name: str) -> Json:
    """Wait until the vector index has what the catalog has, and return the counts."""
    deadline = time.monotonic() + READY_S
    while True:
        index = client.get("indexes", name)
        counts: Json = index["counts"]
        if not index["warnings"] and counts["reachable"] == counts["texts"]:
            return counts
        if time.monotonic() > deadline:
            told = index["problem"] or " ".join(index["warnings"]) or "It is still being filled."
            raise EmbedserveError(f"The vector index of `{name}` is not ready. {told}")
        time.sleep(POLL_S)  # no event of the API tells it


def _slug(name: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in name)[:30]
