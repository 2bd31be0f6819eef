"""What is left after a kill: a whole catalog, and an index that can be put right from it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from embedserve.store.catalog import Catalog
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess
from embedserve.store.repair import check, repair
from tests.store_samples import catalog_with_index, document, wait_until
from tests.test_store_repair import find

DOCUMENTS, CHUNKS = 3, 200

# Replaces documents for ever; every chunk of one version names that version.
WRITER = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
from tests.test_store_repair import find
from tests.store_samples import document
from embedserve.store.catalog import Catalog
catalog = Catalog(pathlib.Path(sys.argv[1]))
index, job = catalog.indexes.get("notes"), catalog.jobs.latest(1)[0].id
turn = 0
while True:
    turn += 1
    texts = [f"version {turn} part {part}" for part in range(int(sys.argv[4]))]
    path = f"/d/{turn % int(sys.argv[3])}"
    version = document(path, texts, sha256=str(turn))
    catalog.documents.commit(index, version, job_id=job, outcome="updated")
    print(turn, flush=True)
"""


@pytest.mark.parametrize("after_commits", [1, 4, 9])
def test_a_writer_killed_at_work_leaves_whole_documents(tmp_path: Path, after_commits: int) -> None:
    with catalog_with_index(tmp_path):
        pass
    arguments = [tmp_path / "catalog.sqlite3", Path(__file__).parent.parent, DOCUMENTS, CHUNKS]
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(after_commits)]
        writer.kill()  # the next version is being computed or committed
        lines += writer.stdout.read().splitlines()
    acknowledged = max(int(line) for line in lines)
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        check_whole(catalog, acknowledged)


def check_whole(catalog: Catalog, acknowledged: int) -> None:
    index = catalog.indexes.get("notes")
    files = catalog.documents.known_files(index.id, "/d")
    chunks = catalog.chunks.by_id(index.id, catalog.chunks.ids(index.id).tolist()).values()
    turns = [int(file.sha256) for file in files.values()]
    assert max(turns) in (acknowledged, acknowledged + 1)  # the last may not have been printed
    for path, file in files.items():
        texts = {chunk.text for chunk in chunks if chunk.path == path}
        assert texts == {f"version {file.sha256} part {part}" for part in range(CHUNKS)}
    counts = catalog.indexes.counts(index.id)
    assert counts.chunks == counts.vectors == CHUNKS * len(files)
    # The log alone rebuilds the vector index: played from its start it ends at the live chunks.
    built: set[int] = set()
    while pending := catalog.changes.pending(index):
        built = (built | set(pending.upserts.ids.tolist())) - set(pending.deletes)
        catalog.changes.acknowledge(index.id, pending.up_to)
    assert built == set(catalog.chunks.ids(index.id).tolist())


def test_a_damaged_chroma_folder_is_emptied_and_filled_from_the_catalog(tmp_path: Path) -> None:
    told = Event()

    def listen(*, was_emptied: bool) -> None:
        if was_emptied:
            told.set()

    process = ChromaProcess(tmp_path / "chroma", tmp_path / "log", timeout_s=30, on_restart=listen)
    index_of_process = ChromaIndex(lambda: process.url, timeout_s=10)
    with catalog_with_index(tmp_path) as (catalog, index, job):
        texts = [f"text {number}" for number in range(100)]
        catalog.documents.commit(index, document("/d/a", texts), job_id=job, outcome="added")
        try:
            process.start()
            drain(catalog, index_of_process)
            assert find(catalog, index_of_process, index) == []
            (tmp_path / "chroma" / "chroma.sqlite3").write_bytes(b"damaged" * 10_000)
            former = process.pid
            assert former is not None
            os.kill(former, signal.SIGKILL)
            wait_until(told.is_set, within_s=30)
            health = check(catalog, index_of_process, index)
            assert len(health.missing) == 100
            repair(catalog, index_of_process, index, health)
            drain(catalog, index_of_process)
            assert find(catalog, index_of_process, index) == []
        finally:
            index_of_process.close()
            process.stop()


def drain(catalog: Catalog, vector_index: ChromaIndex) -> None:
    [index] = catalog.indexes.all()
    while pending := catalog.changes.pending(index):
        vector_index.delete(index.id, pending.deletes)
        vector_index.upsert(index.id, pending.upserts.ids, pending.upserts.vectors)
        catalog.changes.acknowledge(index.id, pending.up_to)
