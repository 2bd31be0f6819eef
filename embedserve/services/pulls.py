"""Pulls, one after the other on a thread of their own: they hold up no other request.

A pull that is asked for again while it waits or works is joined, not repeated. Whoever asked may
leave; the pull goes on.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition, Thread

from embedserve.errors import EmbedserveError, ModelError, OverloadedError
from embedserve.models.installed import InstalledModel
from embedserve.models.names import parse_name
from embedserve.services.models import Progress, PullRequest

logger = logging.getLogger(__name__)

Work = Callable[[PullRequest, Progress], InstalledModel]

MAX_PULLS = 16
"""Different pulls that wait or work; each takes minutes, so more would wait for an hour."""


@dataclass(frozen=True)
class _Step:
    stage: str
    done: int | None
    total: int | None


class _Follower:
    """Somebody who waits for a pull; a cancelled future tells that they have left."""

    def __init__(self, progress: Progress) -> None:
        self.future: Future[InstalledModel] = Future()
        self._progress = progress

    def tell(self, step: _Step) -> None:
        if not self.future.cancelled():
            self._progress(step.stage, step.done, step.total)

    def resolve(self, outcome: InstalledModel | EmbedserveError) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, EmbedserveError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


@dataclass
class _Pull:
    request: PullRequest
    followers: list[_Follower] = field(default_factory=list)
    step: _Step | None = None
    """What was told last, for those who join."""

    def join(self, follower: _Follower) -> None:
        """Add a follower in place of those who have left."""
        self.followers = [other for other in self.followers if not other.future.cancelled()]
        self.followers.append(follower)
        if self.step:
            follower.tell(self.step)


class PullQueue:
    """Carry out pulls in the order in which they were first asked for."""

    def __init__(self, work: Work) -> None:
        self._work = work
        # By the request with its name in one spelling; the first one is in work.
        self._pulls: dict[PullRequest, _Pull] = {}
        self._changed = Condition()
        self._is_closed = False
        self._thread: Thread | None = None

    def submit(self, request: PullRequest, progress: Progress) -> Future[InstalledModel]:
        """Queue a pull or join it; the future fails with EmbedserveError only.

        `progress` is called from another thread until the future is done, and must not wait.
        Cancel the future to hear no more. Raises InvalidNameError, and OverloadedError when too
        many pulls wait.
        """
        key = replace(request, name=parse_name(request.name).display.lower())
        follower = _Follower(progress)
        with self._changed:
            if self._is_closed:
                raise OverloadedError("The server is stopping; pull the model again later.")
            if key not in self._pulls and len(self._pulls) >= MAX_PULLS:
                raise OverloadedError(
                    f"{MAX_PULLS} pulls wait already; pull `{request.name}` when they are done."
                )
            self._pulls.setdefault(key, _Pull(request)).join(follower)
            if self._thread is None:
                # A daemon: a pull that waits for another process must not keep this one alive.
                self._thread = Thread(target=self._run, name="pulls", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return follower.future

    def close(self, timeout_s: float = 5) -> None:
        """Take up no further pull, wait for the one in work, fail what is not done by then."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout_s)
        for key in list(self._pulls):
            self._resolve(key, OverloadedError("The server stopped; pull the model again."))

    def _run(self) -> None:
        while key := self._next():
            self._resolve(key, self._carry_out(self._pulls[key]))

    def _next(self) -> PullRequest | None:
        with self._changed:
            while not self._pulls and not self._is_closed:
                self._changed.wait()
            return None if self._is_closed else next(iter(self._pulls))

    def _carry_out(self, pull: _Pull) -> InstalledModel | EmbedserveError:
        request = pull.request
        try:
            return self._work(request, partial(self._tell, pull))
        except EmbedserveError as error:
            return error
        except OSError as error:
            logger.exception("pulling %s", request.name)
            return ModelError(
                f"Model `{request.name}` could not be installed: {error}. "
                "Look at the disk under the home folder, then pull it again."
            )
        except Exception as error:  # job runner: a pull's failure is its own
            logger.exception("pulling %s", request.name)
            return ModelError(
                f"Model `{request.name}` could not be installed: unexpected failure "
                f"({type(error).__name__}); the log has the details."
            )

    def _tell(self, pull: _Pull, stage: str, done: int | None, total: int | None) -> None:
        with self._changed:
            pull.step = _Step(stage, done, total)
            for follower in pull.followers:
                follower.tell(pull.step)

    def _resolve(self, key: PullRequest, outcome: InstalledModel | EmbedserveError) -> None:
        with self._changed:
            pull = self._pulls.pop(key, None)
        for follower in pull.followers if pull else ():
            follower.resolve(outcome)
