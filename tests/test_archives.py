"""Archives of indexes: exact on their way round, refused whole when anything is wrong."""

import base64
import hashlib
import io
import json
import sqlite3
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from embedserve.errors import ConflictError, EmbedserveError, InvalidRequestError, TooLargeError
from embedserve.services.archives import ArchiveService
from embedserve.services.origins import Origin
from embedserve.store.catalog import Catalog
from embedserve.types import EVERY_DOCUMENT, FileProblem, KnownFile, Provenance
from tests.fake_house import Model
from tests.store_samples import ARTEFACT, DIMENSIONS, catalog_with_index, document, embedded

LIMIT = 1 << 22
Members = dict[str, bytes]


class OneModel(Model):
    """Encoders with one model."""

    def __init__(self, artefact: str = ARTEFACT) -> None:
        super().__init__("m", DIMENSIONS)
        facts = {**vars(self.spec), "artefact": artefact}
        self.spec = SimpleNamespace(**facts, recipe="int8", engine="onnxruntime")

    def get(self, name: str) -> "OneModel":
        return self


def service(catalog: Catalog, folder: Path, encoders: OneModel | None = None) -> ArchiveService:
    indexes = SimpleNamespace(find=catalog.indexes.get)
    worker = SimpleNamespace(wake=lambda: None)
    models = cast(Any, encoders or OneModel())
    return ArchiveService(catalog, cast(Any, indexes), models, cast(Any, worker), (folder, LIMIT))


def take(archives: ArchiveService, content: bytes, name: str | None = None) -> None:
    with closing(archives.open_upload()) as upload:
        upload.write(content)
        archives.take(upload, name)


def rows(path: Path, name: str) -> list[Any]:
    """Return all that the catalog holds of an index, but for its numbers."""
    with closing(sqlite3.connect(path)) as connection:
        [index_id, *facts] = connection.execute(
            "SELECT id, definition, model, artefact, dimensions FROM indexes WHERE name = ?",
            (name,),
        ).fetchone()
        wanted = [
            f"SELECT {', '.join(columns(connection, 'documents')[2:])} FROM documents d"
            " WHERE index_id = ? ORDER BY path",
            f"SELECT d.path, {', '.join('c.' + c for c in columns(connection, 'chunks')[3:])}"
            " FROM chunks c JOIN documents d ON d.id = c.document_id"
            " WHERE c.index_id = ? ORDER BY d.path, ordinal",
            "SELECT v.text_hash, v.vector FROM vectors v WHERE text_hash IN"
            " (SELECT text_hash FROM chunks WHERE index_id = ?) ORDER BY text_hash",
        ]
        return [facts, *(connection.execute(sql, (index_id,)).fetchall() for sql in wanted)]


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def origin(seed: int) -> str:
    vector = np.full(DIMENSIONS, seed, "<f4").tobytes()
    return Origin("text", "cpu", "1", base64.b64encode(vector).decode()).write()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A catalog with an index of three documents, and its archive."""
    folder = tmp_path_factory.mktemp("exported")
    with catalog_with_index(folder) as (catalog, index, job):
        first = embedded("/d/ü b.md", ["one", "two", "one"], before="m: ")
        catalog.documents.commit(index, first, job_id=job, outcome="added")
        second = embedded("/d/\U0001f600", [f"text {n}" for n in range(50)], before="m: ")
        sent = Provenance("url", '{"a": 1}', '"tag"', "Mon")
        second = replace(second, provenance=sent)
        catalog.documents.commit(index, second, job_id=job, outcome="added")
        catalog.documents.delete(index, "/d/ü b.md", job_id=job)  # so that numbers have gaps
        catalog.documents.commit(index, first, job_id=job, outcome="added")
        problem = FileProblem("/d/x.pdf", "encrypted", "open", "It is.", "Unlock it.")
        catalog.documents.commit_problem(
            index, KnownFile("/d/x.pdf", 5, 6, "", problem), job_id=job, outcome="failed",
            keep_previous=False,
        )  # fmt: skip
        catalog.origins.add(ARTEFACT, origin(1))
        content = b"".join(service(catalog, folder).export("notes"))
    return folder / "catalog.sqlite3", content


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "other.sqlite3") as catalog:
        yield catalog


def test_a_round_trip_keeps_every_row_and_every_bit(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path
) -> None:
    path, content = exported
    before = other.indexes.create("first", "{}", model="m", artefact="b" * 64, dimensions=4)
    take(service(other, tmp_path), content)
    take(service(other, tmp_path), content, "again")
    ours = rows(path, "notes")
    ours[0][0] = other.indexes.get("notes").definition  # keys with their defaults
    assert len(ours[1]) == 3
    assert len(ours[2]) == 53
    assert rows(tmp_path / "other.sqlite3", "notes") == ours
    assert rows(tmp_path / "other.sqlite3", "again") == ours
    notes = other.indexes.get("notes")
    waiting = other.changes.pending_ids(notes.id).tolist()
    assert waiting == other.chunks.representatives(notes.id).tolist()
    assert other.origins.get(ARTEFACT) == origin(1)
    assert other.indexes.get("first") == before
    assert b"".join(service(other, tmp_path).export("again"))[:4] == b"PK\x03\x04"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert np.load(io.BytesIO(archive.read("vectors.npy"))).shape == (52, DIMENSIONS)


def test_an_export_is_of_one_moment_and_needs_little_memory(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        for number in range(8):
            texts = [f"{number} {n} " + "x" * 2000 for n in range(500)]
            version = document(f"/d/{number}", texts)
            catalog.documents.commit(index, version, job_id=job, outcome="added")
        tracemalloc.start()
        parts = service(catalog, tmp_path).export("notes")
        content = bytearray(next(parts))
        catalog.documents.delete(index, "/d/7", job_id=job)
        base = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for part in parts:
            content += part[:0]  # its size is what counts
        peak = tracemalloc.get_traced_memory()[1] - base
        tracemalloc.stop()
        assert peak < 6 << 20, "8 MB of texts were held at once"
        whole = b"".join(service(catalog, tmp_path).export("notes"))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert json.loads(archive.read("manifest.json"))["counts"]["documents"] == 7


def members(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: Members, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return target.getvalue()


def signed(parts: Members) -> Members:
    """Give a changed archive the checksums of what it holds now."""
    manifest = json.loads(parts["manifest.json"])
    for name in manifest["files"]:
        content = parts.get(name, b"")
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    return {**parts, "manifest.json": json.dumps(manifest).encode()}


def with_manifest(parts: Members, **changes: object) -> Members:
    manifest = {**json.loads(parts["manifest.json"]), **changes}
    return {**parts, "manifest.json": json.dumps(manifest).encode()}


def with_index(parts: Members, **changes: object) -> Members:
    index = {**json.loads(parts["manifest.json"])["index"], **changes}
    return with_manifest(parts, index=index)


def edited(parts: Members, name: str, old: bytes, new: bytes) -> Members:
    assert old in parts[name]
    return signed({**parts, name: parts[name].replace(old, new, 1)})


def turned(vectors: bytes) -> bytes:
    """Return the last fifty vectors in the reverse order."""
    rows = np.frombuffer(vectors[-1600:], "<f4").reshape(50, DIMENSIONS)
    return rows[::-1].tobytes()


DAMAGES: dict[str, tuple[Callable[[Members], Members], str]] = {
    "another checksum": (
        lambda p: {**p, "chunks.jsonl": p["chunks.jsonl"].replace(b"one", b"two", 1)},
        "not what its manifest says",
    ),
    "a path that leads out": (
        lambda p: {**p, "../../outside": b"x"},
        "does not hold what an index's does",
    ),
    "a text that was not embedded": (
        lambda p: edited(p, "chunks.jsonl", b'"text":"text 7"', b'"text":"text 8"'),
        "text_hash is not of what",
    ),
    "a title that was not embedded": (
        lambda p: edited(p, "documents.jsonl", b'"title":"Title"', b'"title":"Titles"'),
        "text_hash is not of what",
    ),
    "vectors in another order": (
        lambda p: signed({**p, "vectors.npy": p["vectors.npy"][:-1600] + turned(p["vectors.npy"])}),
        "does not give for its text",
    ),
    "a text without its vector": (
        lambda p: signed({**p, "hashes.txt": p["hashes.txt"][:-65] + b"f" * 64 + b"\n"}),
        "lacks vectors of its chunks",
    ),
    "a missing member": (
        lambda p: {k: v for k, v in p.items() if k != "hashes.txt"},
        "does not hold what an index's does",
    ),
    "a newer version": (lambda p: with_manifest(p, version=4), "version 4"),
    "another format": (lambda p: with_manifest(p, format="else"), "format `else`"),
    "no manifest": (lambda p: {**p, "manifest.json": b"[]"}, "cannot be read"),
    "an unknown key": (lambda p: with_manifest(p, more=1), "`more`"),
    "a bad name": (lambda p: with_index(p, name="../x"), "is not valid"),
    "a bad definition": (lambda p: with_index(p, definition='{"modell": "x"}'), "modell"),
    "no definition": (lambda p: with_index(p, definition="["), "not JSON"),
    "another length": (lambda p: with_index(p, dimensions=9), "another build"),
    "a foreign origin": (lambda p: with_index(p, origin='{"text": 1}'), "origin"),
    "an unknown column": (
        lambda p: edited(p, "documents.jsonl", b'{"id"', b'{"more":1,"id"'),
        "`more`",
    ),
    "metadata that is no object": (
        lambda p: edited(p, "documents.jsonl", b'"metadata":"{}"', b'"metadata":"[]"'),
        "metadata",
    ),
    "a number that no row can hold": (
        lambda p: edited(p, "documents.jsonl", b'"mtime_ns":20', b'"mtime_ns":' + b"9" * 30),
        "mtime_ns",
    ),
    "a chunk of no document": (
        lambda p: edited(p, "chunks.jsonl", b'"document":', b'"document":77'),
        "which it lacks",
    ),
    "a chunk twice": (
        lambda p: edited(p, "chunks.jsonl", b'"ordinal":1', b'"ordinal":0'),
        "contradict",
    ),
    "a chunk without its vector": (
        lambda p: edited(p, "chunks.jsonl", b'"text_hash":"', b'"text_hash":"' + b"0" * 64) | {},
        "text_hash",
    ),
    "fewer rows than it says": (
        lambda p: signed({**p, "chunks.jsonl": p["chunks.jsonl"][:300]}),
        "chunks.jsonl",
    ),
    "more rows than it says": (
        lambda p: signed({**p, "documents.jsonl": p["documents.jsonl"] * 2}),
        "more rows than it says",
    ),
    "hashes out of order": (
        lambda p: signed({**p, "hashes.txt": b"f" * 64 + p["hashes.txt"][64:]}),
        "not in order",
    ),
    "a vector that is no number": (
        lambda p: signed({**p, "vectors.npy": p["vectors.npy"][:-4] + b"\xff" * 4}),
        "finite",
    ),
    "a pickled array": (
        lambda p: signed({**p, "vectors.npy": p["vectors.npy"].replace(b"<f4", b"|O ", 1)}),
        "vectors.npy",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_archive_that_does_not_hold_is_refused_and_nothing_changes(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path, name: str
) -> None:
    change, words = DAMAGES[name]
    with pytest.raises(EmbedserveError, match=words):
        take(service(other, tmp_path), packed(change(members(exported[1]))))
    assert other.indexes.all() == []
    with other._database.read() as connection:
        for table in ("vectors", "documents", "chunks", "origins", "changes"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def without(content: bytes, *names: str) -> bytes:
    """Return lines of JSON without some of their keys."""
    rows = [json.loads(line) for line in content.splitlines()]
    kept = [{key: row[key] for key in row if key not in names} for row in rows]
    return b"".join(json.dumps(row).encode() + b"\n" for row in kept)


def test_an_archive_of_the_second_version_knows_no_lines(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path
) -> None:
    parts = members(exported[1])
    parts["chunks.jsonl"] = without(parts["chunks.jsonl"], "line_start", "line_end")
    take(service(other, tmp_path), packed(with_manifest(signed(parts), version=2)))
    index_id = other.indexes.get("notes").id
    chunks = other.chunks.by_id(index_id, other.chunks.ids(index_id).tolist()).values()
    assert [chunk.lines for chunk in chunks] == [None] * 53


def test_an_archive_of_the_first_version_holds_files_of_folders(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path
) -> None:
    parts = members(exported[1])
    parts["chunks.jsonl"] = without(parts["chunks.jsonl"], "line_start", "line_end")
    parts["documents.jsonl"] = without(
        parts["documents.jsonl"], "source", "metadata", "etag", "last_modified"
    )
    take(service(other, tmp_path), packed(with_manifest(signed(parts), version=1)))
    found = other.uploads.page(other.indexes.get("notes").id, EVERY_DOCUMENT, limit=10)
    assert [(document.source, document.metadata) for document in found] == [("folder", "{}")] * 3


def test_sizes_are_limited(exported: tuple[Path, bytes], other: Catalog, tmp_path: Path) -> None:
    archives = service(other, tmp_path)
    with pytest.raises(TooLargeError, match="EMBEDSERVE_MAX_ARCHIVE_BYTES"):
        take(archives, b"x" * (LIMIT + 1))
    bomb = packed({**members(exported[1]), "chunks.jsonl": bytes(LIMIT)})
    assert len(bomb) < LIMIT // 50
    with pytest.raises(TooLargeError, match="unpacks to more"):
        take(archives, bomb)
    crowd = packed({f"{number:0200}": b"" for number in range(6000)})  # a directory of 1.5 MB
    with pytest.raises(InvalidRequestError, match="directory"):
        take(archives, crowd)
    for nothing in (b"", b"PK", exported[1][:-30], exported[1][:2000]):
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            take(archives, nothing)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_bound_is_never_begun(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path, how: int
) -> None:
    size = LIMIT * 8 + 0x123456  # no run of zeros, which stands elsewhere in a zip too
    content = packed({**members(exported[1]), "chunks.jsonl": bytes(size)}, how)
    for sent in (content, understated(content, size)):
        tracemalloc.start()
        with pytest.raises(InvalidRequestError, match="compressed in a way"):
            take(service(other, tmp_path), sent)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LIMIT


def understated(content: bytes, size: int) -> bytes:
    """Give an archive whose directory says of what unpacks to `size` bytes that it is small."""
    said = size.to_bytes(4, "little")
    assert content.count(said) == 2
    return content.replace(said, (99).to_bytes(4, "little"))


def test_another_build_of_the_model_says_what_to_pull(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match=r"pull m --recipe int8 --engine onnxruntime"):
        take(service(other, tmp_path, OneModel("c" * 64)), exported[1])


def test_vectors_of_two_machines_are_not_mixed(
    exported: tuple[Path, bytes], other: Catalog, tmp_path: Path
) -> None:
    index = other.indexes.create("i", "{}", model="m", artefact=ARTEFACT, dimensions=DIMENSIONS)
    other.origins.add(ARTEFACT, origin(2))
    job = other.jobs.create("i", "/d").id
    other.documents.commit(index, document("/d/a", ["one"]), job_id=job, outcome="added")
    with pytest.raises(ConflictError, match="another class of machine"):
        take(service(other, tmp_path), exported[1])
    other.documents.delete(index, "/d/a", job_id=job)
    take(service(other, tmp_path), exported[1])
    assert other.origins.get(ARTEFACT) == origin(1)
    with pytest.raises(ConflictError, match="exists already"):
        take(service(other, tmp_path), exported[1])


def test_an_index_without_all_its_vectors_is_not_exported(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", ["one"]), job_id=job, outcome="added")
        with catalog._database.write() as connection:
            connection.execute("DELETE FROM vectors")
        with pytest.raises(ConflictError, match="check notes --repair"):
            service(catalog, tmp_path).export("notes")
