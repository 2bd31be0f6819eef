"""The time that a request has: the caller's limit or the server's, whichever is shorter."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from embedserve.errors import DeadlineError, OverloadedError


@asynccontextmanager
async def deadline(asked_s: float | None, limit_s: float) -> AsyncIterator[float | None]:
    """Give up what is awaited within after `asked_s`, or after `limit_s` (0: none).

    Gives the moment, of `time.monotonic`, for what runs beside the event loop; None: no limit.
    Raises DeadlineError when the time is over, also for an OverloadedError that came of that.
    """
    timeout_s = min((limit for limit in (asked_s, limit_s) if limit), default=None)
    if timeout_s is None:
        yield None
        return
    deadline_s = time.monotonic() + timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            yield deadline_s
    except (TimeoutError, OverloadedError) as error:
        if isinstance(error, OverloadedError) and time.monotonic() < deadline_s:
            raise
        raise DeadlineError(
            f"The request was not done within {timeout_s:g} s, its time limit "
            "(X-Request-Timeout-Ms, EMBEDSERVE_REQUEST_TIMEOUT_S). Send it again when the "
            "server is less busy, in smaller parts, or with more time."
        ) from None
