"""A home with an index of so many distinct chunks, made through the store as ingestion fills it.

Documents are cut by the product's chunker and committed one by one; the index worker carries them
to Chroma. Only vectors are not all of the engine (scripts/search_report/vectors.py).
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedserve.api.replies import Services
from embedserve.bootstrap.house import open_house
from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import Chunker
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import EmbeddedTexts, text_hash
from embedserve.services.token_budget import chunk_budget
from embedserve.settings import read_settings
from embedserve.store.catalog import Catalog
from embedserve.types import Chunk, Index, NewDocument, Provenance, Vectors
from scripts.bench_report.measure import tell
from scripts.search_report.texts import Document, documents, metadata_of
from scripts.search_report.vectors import Around, is_embedded, known_vectors

INDEX = "searched"
MOST_REAL = 70_000
"""Texts among which those are chosen that are embedded: all others are variants."""
EMBED_AT_ONCE = 512
_PATIENCE_S = 4 * 3600.0
_TELL_EVERY = 10_000


@dataclass(frozen=True)
class Made:
    """What a home holds."""

    chunks: int
    texts: int
    """Distinct ones: what the vector index and the full text hold."""
    documents: int
    variants: int
    """Of the texts, those of recombined sentences."""
    embedded: int
    """Of the texts, those whose vector is the engine's."""
    seconds: float
    """To fill the catalog and the vector index."""


@dataclass(frozen=True)
class VectorShare:
    """Which vectors are the engine's."""

    embedded: int
    """So many are computed, about."""
    known: Path | None = None
    """A catalog of the same model, from which others are taken."""


@dataclass(frozen=True)
class Cut:
    """A document with its chunks and what is known of each."""

    document: Document
    chunks: tuple[Chunk, ...]
    texts: list[str]
    hashes: list[str]


def made_home(home: Path, models: Path, data: Path, *, texts: int, share: VectorShare) -> Made:
    """Return what a home holds, which is made unless it is there."""
    mark = home / "made.json"
    if mark.exists():
        return Made(**json.loads(mark.read_text(encoding="utf-8")))
    if home.exists():
        raise SystemExit(f"`{home}` was not finished. Delete it, and it is made anew.")
    home.mkdir(parents=True)
    (home / "models").symlink_to(models.resolve())
    with open_resident(home) as resident:
        made = resident.fill(data, texts, share)
    mark.write_text(json.dumps(asdict(made)) + "\n", encoding="utf-8")
    return made


class Filler:
    """Fill an index."""

    def __init__(self, catalog: Catalog, encoder: Encoder, index: Index) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._index = index
        budget = chunk_budget(encoder, IndexDefinition())
        self._chunker = Chunker(encoder.offsets, max_tokens=budget.chunk)
        self._embedded = EmbeddedTexts(encoder, budget)
        self._known: set[str] = set()
        self._real: dict[str, int] = {}
        self._chunks = self._variants = 0

    def fill(self, data: Path, texts: int, share: VectorShare) -> Made:
        """Commit documents until the index has so many distinct texts."""
        started = time.perf_counter()
        around = self._around(list(self._first(data, min(texts, MOST_REAL))), share)
        self._known = set()
        job_id = self._catalog.jobs.create(INDEX, str(data)).id
        committed = 0
        for cut in self._first(data, texts):
            self._commit(cut, around, job_id)
            committed += 1
        self._catalog.jobs.finish(job_id, "succeeded")
        return Made(
            *(self._chunks, len(self._known), committed, self._variants, len(self._real)),
            time.perf_counter() - started,
        )

    def _first(self, data: Path, texts: int) -> Iterator[Cut]:
        """Give documents until they have so many distinct texts; no versions of what was there."""
        for document in documents(data):
            found = tuple(self._chunker.chunk(document.text, document.kind, []))
            inputs = self._embedded.of(document.title, found)
            hashes = [text_hash(text) for text in inputs]
            new = set(hashes) - self._known
            if 2 * len(new) < len(found) or not found:
                continue
            room = texts - len(self._known)
            if len(new) > room:
                found, inputs, hashes = found[:room], inputs[:room], hashes[:room]
                new = set(hashes) - self._known
            before = len(self._known)
            self._known |= new
            yield Cut(document, found, inputs, hashes)
            if before // _TELL_EVERY != len(self._known) // _TELL_EVERY:
                tell(f"{len(self._known)} texts")
            if len(self._known) >= texts:
                return

    def _around(self, cuts: list[Cut], share: VectorShare) -> Around:
        """Take the vectors that are known, and embed a share of the other texts."""
        texts = {key: text for cut in cuts for key, text in zip(cut.hashes, cut.texts, strict=True)}
        known = known_vectors(share.known, self._index.artefact)
        kept = {key: known[key] for key in texts if key in known}
        left = {key: text for key, text in texts.items() if key not in kept}
        chosen = [key for key in left if is_embedded(key, share.embedded / max(len(left), 1))]
        tell(f"{len(kept)} vectors are known; embedding {len(chosen)} texts")
        self._real = {key: row for row, key in enumerate([*kept, *chosen])}
        new = self._vectors([left[key] for key in chosen])
        return Around(np.concatenate([np.stack([*kept.values()]), new]) if kept else new)

    def _vectors(self, texts: list[str]) -> Vectors:
        parts = [
            self._encoder.encode(texts[at : at + EMBED_AT_ONCE])
            for at in range(0, len(texts), EMBED_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _commit(self, cut: Cut, around: Around, job_id: str) -> None:
        document, raw = cut.document, cut.document.text.encode()
        keys = list(dict.fromkeys(cut.hashes))
        version = NewDocument(
            path=document.path,
            size_bytes=len(raw),
            mtime_ns=0,
            sha256=hashlib.sha256(raw).hexdigest(),
            title=document.title,
            kind=document.kind,
            chunks=cut.chunks,
            text_hashes=tuple(cut.hashes),
            new_hashes=tuple(keys),
            vectors=self._rows(keys, around),
            provenance=Provenance(metadata=metadata_of(document)),
        )
        self._catalog.documents.commit(self._index, version, job_id=job_id, outcome="added")
        self._chunks += len(cut.chunks)
        self._variants += len(keys) if document.is_variant else 0

    def _rows(self, keys: list[str], around: Around) -> Vectors:
        """Return real vectors where there are some, and others near that of a chunk beside."""
        real = [self._real.get(key) for key in keys]
        places = [at for at, row in enumerate(real) if row is not None]
        elsewhere = int(hashlib.sha256(keys[0].encode()).hexdigest(), 16) % len(around.real)
        anchors = []
        for at in range(len(keys)):
            nearest = min(places, key=lambda place: abs(place - at), default=None)
            row = None if nearest is None else real[nearest]
            anchors.append(elsewhere if row is None else row)
        rows = around.draw(np.array(anchors, np.int64))
        for place in places:
            rows[place] = around.real[anchors[place]]
        return rows


class Resident:
    """The index in a house of this process."""

    def __init__(self, services: Services) -> None:
        """Take what is below the public door on purpose: see `Filler`."""
        if INDEX not in services.indexes.names():
            services.indexes.put(INDEX, IndexDefinition())
        search: Any = services.search
        self.catalog: Catalog = search._catalog
        self.dense: Any = search._finder._dense
        self.index = services.indexes.find(INDEX)
        self.encoder: Encoder = search._encoders.get(self.index.model)

    def fill(self, data: Path, texts: int, share: VectorShare) -> Made:
        """Fill the index, and wait until the vector index has all of it."""
        made = Filler(self.catalog, self.encoder, self.index).fill(data, texts, share)
        started = time.perf_counter()
        tell("waiting for the vector index")
        if not self.dense._worker.wait_until_applied(self.index.id, _PATIENCE_S):
            raise SystemExit("The vector index took too long.")
        return replace(made, seconds=made.seconds + time.perf_counter() - started)


@contextmanager
def open_resident(home: Path) -> Iterator[Resident]:
    """Open the house; none of its jobs runs."""
    os.chdir(home)  # no project folder: no definitions are picked up by chance
    settings = read_settings({"home": home.resolve()}, {})
    with open_house(settings, runs_jobs=False) as house:
        yield Resident(house.services)
