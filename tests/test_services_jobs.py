"""The parts of a job by themselves: vectors in windows, interruption, what is left."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Condition, Event
from typing import Any

import numpy as np
import pytest

from embedserve.cli.job_display import Rates, status_line
from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import CatalogUnavailableError
from embedserve.ingest.chunk_stream import CutTo
from embedserve.services.document_vectors import WINDOW, DocumentVectors
from embedserve.services.drafting import Drafting
from embedserve.services.held_up import TAKING_UP, HeldUp
from embedserve.services.ingest_plan import renamed
from embedserve.services.interruption import Interruption, JobInterruptedError
from embedserve.services.job_progress import JobProgress
from embedserve.services.pace import Pace
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import (
    BatchTokens,
    Chunk,
    FoundFile,
    Job,
    KnownFile,
    NewDocument,
    Plan,
)
from tests.tiny_graph import DIMENSIONS, tiny_spec


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    spec = tiny_spec(tmp_path_factory.mktemp("encoder"))
    # Room for less than a window: the second one has to wait.
    scheduler = Scheduler(workers=2, batch_tokens=BatchTokens(256, 256), queue_tokens=1000)
    yield Encoder(spec, scheduler, device="cpu")
    scheduler.close()


def chunks_of(texts: list[str]) -> list[Chunk]:
    return [Chunk(n, text, n, n + 1) for n, text in enumerate(texts)]


def test_a_long_document_is_embedded_in_windows_and_the_same_text_once(
    encoder: Encoder, tmp_path: Path
) -> None:
    distinct = [f"w{1 + n % 9} w{1 + n // 9 % 9} w{1 + n // 81}" for n in range(3 * WINDOW // 2)]
    chunks = chunks_of([*distinct, *distinct])
    done: list[int] = []
    with Catalog(tmp_path / "c") as catalog:
        index = catalog.indexes.create(
            "notes", "{}", model="m", artefact="0" * 64, dimensions=DIMENSIONS
        )
        job = catalog.jobs.create("notes", "/d")
        stage = DocumentVectors(
            catalog,
            encoder,
            index,
            budget=TokenBudget(prefix=4, chunk=8),
            interruption=Interruption(lambda: False, lambda: False),
        )
        drafting = Drafting(catalog, index, job_id=job.id, path="/d/a", origin="one")
        keep = drafting.keeper(lambda draft: done.append(draft.chunks))
        last = stage.embed("", drafting.windows(chunks), keep)
        assert last is not None
        assert drafting.draft is not None
        # What came before the last window is in the catalog already, where nobody sees it.
        assert len(catalog.chunks.known_hashes(index, last.part.text_hashes)) == WINDOW
        assert last.part.new_hashes == ()
        assert catalog.chunks.count(index.id) == 0
        part = last.part
        document = NewDocument(
            "/d/a", 1, 1, "0" * 64, "", "text", part.chunks, part.text_hashes,
            part.new_hashes, part.vectors, draft=drafting.draft,
        )  # fmt: skip
        catalog.documents.commit(index, document, job_id=job.id, outcome="added", work=last.work)
        ids = catalog.chunks.ids(index.id).tolist()
        stored = catalog.chunks.vectors_of(index, ids).vectors
        assert np.array_equal(stored, encoder.encode([chunk.text for chunk in chunks]))
        ended = catalog.jobs.get(job.id)
        assert (ended.chunks_embedded, ended.chunks) == (len(distinct), 2 * len(distinct))
        assert ended.tokens_embedded == 3 * len(distinct)
        assert done == sorted(done)
        assert done[-1] + WINDOW == 2 * len(distinct)


def test_an_interrupted_document_leaves_nothing_in_the_queue(
    encoder: Encoder, tmp_path: Path
) -> None:
    is_stopping = Event()
    with Catalog(tmp_path / "c") as catalog:
        index = catalog.indexes.create(
            "notes", "{}", model="m", artefact="0" * 64, dimensions=DIMENSIONS
        )
        stage = DocumentVectors(
            catalog,
            encoder,
            index,
            budget=TokenBudget(prefix=4, chunk=8),
            interruption=Interruption(is_stopping.is_set, lambda: False),
        )
        texts = [f"w{n % 7} w{n // 7 % 7} w{n // 49 % 7} w{n // 343}" for n in range(5 * WINDOW)]
        windows = [CutTo(chunks_of(texts[n : n + WINDOW]), n) for n in range(0, 5 * WINDOW, WINDOW)]
        with pytest.raises(JobInterruptedError):
            stage.embed("", windows, lambda done: is_stopping.set())
        assert not encoder.is_busy


def test_cancelling_is_seen_without_asking_the_catalog_each_time() -> None:
    asked = itertools.count()
    interruption = Interruption(lambda: False, lambda: next(asked) < 0)
    assert not any(interruption() for _ in range(1000))
    assert 1 <= next(asked) < 10


def test_what_is_left_is_told_once_there_is_a_basis() -> None:
    job = Job("a", "notes", "/d", "running", "then", bytes_done=400, bytes_total=1000)
    progress = JobProgress()
    assert progress.report(job).seconds_left is None
    progress.begin_reading(bytes_done=200)
    assert progress.report(job).seconds_left is None, "too early"
    progress._started_s -= 10
    left = progress.report(job).seconds_left
    assert left == pytest.approx(30, rel=0.01), "200 in 10 s, and 600 to go"
    progress.advance("/d/large", 100)
    report = progress.report(job)
    assert report.bytes_done == 500
    assert report.seconds_left == pytest.approx(500 * 10 / 300, rel=0.01)
    progress.end("/d/large")
    assert progress.report(job).bytes_done == 400
    progress.begin_indexing()
    assert progress.report(job).seconds_left == 0


@pytest.mark.parametrize(
    ("former", "present", "title", "is_one"),
    [
        ("/d/a.md", "/d/b/a.md", "a", True),  # the same name elsewhere
        ("/d/a.md", "/d/b.md", "Guide", True),
        ("/d/a.md", "/d/b.md", "a", False),  # the name was the title
        ("/d/a.py", "/d/b.py", "a.py", False),
        ("/d/a.md", "/d/b.txt", "Guide", False),  # read in another way
    ],
)
def test_a_renamed_file_is_the_same_document_if_its_title_is(
    former: str, present: str, title: str, is_one: bool
) -> None:
    known = {former: KnownFile(former, 5, 1, "0" * 64)}
    planned = Plan((FoundFile(present, 5, 2), FoundFile("/d/x", 6, 2)), (), (former,), ())
    found = list(renamed(planned, known, {former: title}))
    assert found == ([(planned.add[0], [known[former]])] if is_one else [])


def test_small_batches_wait_for_more_unless_somebody_waits_for_them() -> None:
    changed = Condition()
    waiting = 0
    pace = Pace(changed, enough=10, waiting=lambda: waiting, linger_s=0.5, poll_s=0.01)

    def lingered(*, applied: bool = True, is_urgent: bool = False) -> bool:
        pace.begin()
        if applied:
            pace.applied()
        if is_urgent:
            pace.hurry()
        started = time.monotonic()
        pace.linger()
        return time.monotonic() - started > 0.25

    assert lingered()
    assert not lingered(applied=False), "nothing came, so nothing more is expected"
    assert not lingered(is_urgent=True)
    waiting = 10
    assert not lingered()


def test_the_terminal_shows_rates_of_the_last_seconds_and_what_is_left() -> None:
    def job(seconds: int) -> dict[str, Any]:
        progress = {"chunks": 10 * seconds, "tokens": 1000 * seconds, "seconds_left": 90 - seconds}
        return {"progress": progress, "counts": {"added": seconds, "failed": 2}}

    rates = Rates()
    first = job(0) | {"counts": {}}
    first["progress"]["seconds_left"] = None
    assert status_line(first, rates, 100.0) == "0 chunks/s, 0 tokens/s"
    told = [status_line(job(s), rates, 100.0 + s) for s in range(1, 30)]
    assert told[-1] == "10 chunks/s, 1000 tokens/s, 2 failed, 0:01:01 left"


def test_what_holds_a_job_up_is_logged_once_and_tried_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queued, held_up = Job("a", "notes", "/d", "queued", "then"), HeldUp()
    running = replace(queued, status="running")
    waits = [held_up.note(TAKING_UP, CatalogUnavailableError("It is full.")) for _ in range(6)]
    assert waits == sorted(waits)
    assert waits[0] < waits[-1] == waits[-2], "and no less often than so"
    assert caplog.text.count("It is full.") == 1
    assert held_up.reason(queued) == "It is full."
    assert held_up.reason(running) is None
    held_up.end(TAKING_UP)
    assert held_up.reason(queued) is None
    held_up.note("a", CatalogUnavailableError("It is read-only."))
    assert held_up.reason(running) == "It is read-only."
    held_up.go_on("a")
    assert held_up.reason(running) is None
    assert held_up.note("a", CatalogUnavailableError("It is read-only.")) == waits[1]
    assert caplog.text.count("It is read-only.") == 1
