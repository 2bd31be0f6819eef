"""How long a request may take: the caller's time or the server's, whichever is shorter."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from embedserve.errors import DeadlineError, OverloadedError

T = TypeVar("T")


async def in_time(
    work: Callable[[float | None], Awaitable[T]], *, timeout_s: float | None, limit_s: float
) -> T:
    """Await `work`, told its deadline (of `time.monotonic`); None and 0 set no limit.

    Raises DeadlineError when the time is over; what `work` raises before that goes through.
    """
    allowed_s = limit_s or None
    if timeout_s is not None:
        allowed_s = min(timeout_s, allowed_s or timeout_s)
    if allowed_s is None:
        return await work(None)
    deadline_s = time.monotonic() + allowed_s
    try:
        # What waits for a model, a tokenizer or a worker is dropped; the engine itself is told
        # the deadline too.
        async with asyncio.timeout(allowed_s):
            return await work(deadline_s)
    except (TimeoutError, OverloadedError) as error:
        if isinstance(error, OverloadedError) and time.monotonic() < deadline_s:
            raise
        raise DeadlineError(
            f"The request was not done within {allowed_s:g} s, its time limit "
            "(X-Request-Timeout-Ms, EMBEDSERVE_REQUEST_TIMEOUT_S). Send it again when the "
            "server is less busy, in smaller parts, or with more time."
        ) from None
