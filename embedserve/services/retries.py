"""What failed last with one part of a worker's work, and when it is tried again."""

import logging
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from embedserve.errors import EmbedserveError

logger = logging.getLogger(__name__)

RETRY_S = (0.2, 0.5, 1, 2, 5)


@dataclass(frozen=True)
class Failure:
    """What went wrong last, and when it is tried again."""

    message: str
    count: int
    retry_at: float


def failed(label: str, error: Exception, former: Failure | None, *, started: float) -> Failure:
    """Log a failure of what began at `started`, by the monotonic clock, and return what to note."""
    count = former.count + 1 if former else 1
    log_once(label, error, former)
    # As long as it took, or longer: a slow failure leaves half of the time to the others.
    delay_s = max(retry_s(count), time.monotonic() - started)
    return Failure(reason(error), count, time.monotonic() + delay_s)


def retry_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return RETRY_S[min(failures, len(RETRY_S)) - 1]


def reason(error: Exception) -> str:
    """Say why, in words for the user."""
    if isinstance(error, EmbedserveError):
        return error.message
    return f"Unexpected failure: {type(error).__name__}; see the log."


def log_once(label: str, error: Exception, former: Failure | None) -> None:
    """Log a failure once, not at each try."""
    if former and former.message == reason(error):
        return
    if isinstance(error, EmbedserveError):
        logger.warning("%s: %s It is tried again.", label, error)
    else:
        logger.error("%s: it is tried again after", label, exc_info=error)


def keep_only(noted: MutableMapping[int, Any], keys: Collection[int]) -> None:
    """Forget what is noted of other keys."""
    for key in [key for key in noted if key not in keys]:
        del noted[key]
