"""Watched indexes: when a job is started, and what is said when the system cannot watch."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event

from embedserve.services.definitions import IndexDefinition, Source
from embedserve.services.roots import AllowedRoots
from embedserve.services.watching import WatchService, WatchTimes
from embedserve.store.catalog import Catalog
from embedserve.types import Job
from tests.store_samples import ARTEFACT, DIMENSIONS, wait_until


class Queue:
    """Where jobs are queued."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.paths: list[str | None] = []

    def submit(self, index_name: str, path: str | None) -> Job:
        self.paths.append(path)
        return self.catalog.jobs.create(index_name, path or "")


def definition(folder: Path, *, is_watched: bool = True) -> str:
    sources = (Source(path=str(folder)),)
    return IndexDefinition(sources=sources, watch=is_watched).model_dump_json()


def create(catalog: Catalog, name: str, text: str) -> None:
    catalog.indexes.create(name, text, model="m", artefact=ARTEFACT, dimensions=DIMENSIONS)


def test_a_system_that_cannot_watch_is_told_of_and_rescans_are_made(tmp_path: Path) -> None:
    refusals = threading.Semaphore(2)

    def refuse(roots: Iterable[str], stop: Event) -> Iterator[set[str]]:
        if refusals.acquire(blocking=False):
            raise OSError("no space left for watches")
        while not stop.wait(0.01):
            yield set()

    notices: dict[str, str] = {}
    with Catalog(tmp_path / "catalog") as catalog:
        create(catalog, "a", definition(tmp_path))
        queue = Queue(catalog)
        times = WatchTimes(settle_s=0.1, rescan_s=0, fallback_s=0.05)
        watch = WatchService(catalog, queue, AllowedRoots([tmp_path]), times, notices, see=refuse)
        watch.start()
        wait_until(lambda: "a" in notices, within_s=10)
        assert "no space left for watches" in notices["a"]
        # It is tried again, and what was said is taken back.
        wait_until(lambda: "a" not in notices, within_s=10)
        watch.stop()
    assert set(queue.paths) == {None}


def test_only_what_is_watched_starts_jobs_and_no_job_waits_twice(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    changed = [{str(folder / "sub" / "a.md")}, {str(tmp_path / "docs2" / "x.md")}]

    def see(roots: Iterable[str], stop: Event) -> Iterator[set[str]]:
        assert list(roots) == [str(folder)]
        yield from changed
        changed.clear()
        while not stop.wait(0.01):
            yield set()

    with Catalog(tmp_path / "catalog") as catalog:
        create(catalog, "a", definition(folder))
        create(catalog, "b", definition(tmp_path / "other", is_watched=False))
        create(catalog, "c", definition(Path("/usr")))
        queue = Queue(catalog)
        times = WatchTimes(settle_s=0.05, rescan_s=0.1, fallback_s=1)
        watch = WatchService(catalog, queue, AllowedRoots([tmp_path]), times, {}, see=see)
        watch.start()
        wait_until(lambda: len(queue.paths) == 3, within_s=10)
        Event().wait(0.3)  # three rescans would be due; the first still waits in the queue
        watch.stop()
    assert queue.paths == [None, None, str(folder / "sub")], "those of `a` and `c`, and the change"
