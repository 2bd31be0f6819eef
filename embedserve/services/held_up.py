"""Jobs that cannot go on while the catalog cannot be written: why, and when to try again.

Kept in memory, for the place where jobs are kept is what fails.
"""

import logging

from embedserve.errors import EmbedserveError
from embedserve.types import Job

logger = logging.getLogger(__name__)

RETRY_S = (2, 5, 10, 30)
"""A disk that has room for a note and none for a document must not keep the engine busy."""
TAKING_UP = ""
"""Stands for all queued jobs, where none can be taken up."""


class HeldUp:
    """What holds jobs up, by id."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._logged: dict[str, str] = {}

    def note(self, job_id: str, error: EmbedserveError) -> float:
        """Remember why a job waits, and return for how many seconds; log each reason once."""
        self._reasons[job_id] = error.message
        if self._logged.get(job_id) != error.message:
            self._logged[job_id] = error.message
            label = f"job {job_id}" if job_id else "no job can be taken up"
            logger.warning("%s: %s It goes on by itself when that is over.", label, error)
        tries = self._tries[job_id] = self._tries.get(job_id, 0) + 1
        return RETRY_S[min(tries, len(RETRY_S)) - 1]

    def go_on(self, job_id: str) -> None:
        """Note that a job is at work again; should it fail once more, it waits for longer."""
        self._reasons.pop(job_id, None)

    def end(self, job_id: str) -> None:
        """Forget a job."""
        for noted in (self._reasons, self._tries, self._logged):
            noted.pop(job_id, None)

    def reason(self, job: Job) -> str | None:
        """Return what holds a job up."""
        own = self._reasons.get(job.id)
        return own or (self._reasons.get(TAKING_UP) if job.status == "queued" else None)
