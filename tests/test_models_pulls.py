"""The queue of pulls: joined, ordered, left, refused, stopped."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError, InvalidNameError, ModelError, OverloadedError
from embedserve.models.installed import InstalledModel
from embedserve.services.encoders import Encoders
from embedserve.services.model_library import ModelLibrary
from embedserve.services.models import Machine, Progress, PullRequest, ignore_progress
from embedserve.services.pulls import MAX_PULLS, PullQueue
from embedserve.types import BatchTokens
from tests.hub_double import tiny_checkpoint

WAIT_S = 10


class Work:
    """Stands in for a pull: says `begun`, waits for `go`, then says `done` or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.names: list[str] = []
        self.has_begun = threading.Event()
        self.go = threading.Event()
        self._error = error

    def __call__(self, request: PullRequest, progress: Progress) -> InstalledModel:
        self.names.append(request.name)
        progress("begun", None, None)
        self.has_begun.set()
        assert self.go.wait(WAIT_S)
        if self._error:
            raise self._error
        progress("done", 1, 1)
        return cast(InstalledModel, request.name)


def stages(into: list[str]) -> Progress:
    return lambda stage, done, total: into.append(stage)


def test_a_pull_in_progress_is_joined_and_others_queue_up() -> None:
    work, first, second = Work(), list[str](), list[str]()
    queue = PullQueue(work)
    begun = queue.submit(PullRequest("Org/one"), stages(first))
    assert work.has_begun.wait(WAIT_S)
    joined = queue.submit(PullRequest("org/ONE:latest"), stages(second))
    other = queue.submit(PullRequest("two"), ignore_progress)
    assert not other.done()
    work.go.set()
    results: list[Any] = [begun.result(WAIT_S), joined.result(WAIT_S), other.result(WAIT_S)]
    assert results == ["Org/one", "Org/one", "two"]
    assert work.names == ["Org/one", "two"]
    assert (first, second) == (["begun", "done"], ["begun", "done"])
    queue.close()


def test_who_leaves_hears_no_more_and_the_pull_goes_on() -> None:
    work, heard = Work(), list[str]()
    queue = PullQueue(work)
    left = queue.submit(PullRequest("one"), stages(heard))
    assert work.has_begun.wait(WAIT_S)
    assert left.cancel()
    stayed = queue.submit(PullRequest("one"), ignore_progress)
    work.go.set()
    stayed.result(WAIT_S)
    assert work.names == ["one"]
    assert heard == ["begun"]
    queue.close()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("odd"), KeyError("x")])
def test_every_failure_becomes_one_that_can_be_shown(error: Exception) -> None:
    work = Work(error)
    work.go.set()
    queue = PullQueue(work)
    for _ in range(2):  # and the next pull still finds a thread
        with pytest.raises(ModelError, match="Model `one` could not be installed"):
            queue.submit(PullRequest("one"), ignore_progress).result(WAIT_S)
    queue.close()


def test_bad_names_and_too_many_pulls_are_refused() -> None:
    work = Work()
    queue = PullQueue(work)
    with pytest.raises(InvalidNameError):
        queue.submit(PullRequest("no way"), ignore_progress)
    waiting = [queue.submit(PullRequest(f"m{n}"), ignore_progress) for n in range(MAX_PULLS)]
    with pytest.raises(OverloadedError, match="wait already"):
        queue.submit(PullRequest("one-more"), ignore_progress)
    work.go.set()
    for future in waiting:
        future.result(WAIT_S)
    queue.close()


def test_closing_resolves_every_future_even_of_a_pull_that_hangs() -> None:
    work = Work()
    queue = PullQueue(work)
    futures: Sequence[Future[InstalledModel]] = [
        queue.submit(PullRequest(name), ignore_progress) for name in ("one", "two")
    ]
    assert work.has_begun.wait(WAIT_S)
    queue.close(timeout_s=0.1)
    for future in futures:
        assert isinstance(future.exception(0), OverloadedError)
    with pytest.raises(OverloadedError):
        queue.submit(PullRequest("three"), ignore_progress)
    work.go.set()


def test_closing_the_library_ends_the_export(tmp_path: Path) -> None:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    library = ModelLibrary(tmp_path, Encoders(tmp_path, scheduler, device="cpu"), Machine("cpu", 1))
    is_exporting = threading.Event()
    pull = library.start_pull(
        PullRequest("tiny", tiny_checkpoint(tmp_path / "checkpoint")),
        lambda stage, done, total: is_exporting.set() if stage == "exporting" else None,
    )
    assert is_exporting.wait(WAIT_S)
    started = time.monotonic()
    library.close()
    # The export alone takes several seconds, most of them to load the training stack.
    assert time.monotonic() - started < 3
    assert isinstance(pull.exception(0), EmbedserveError)
    assert list((tmp_path / ".staging").iterdir()) == []
    scheduler.close()
