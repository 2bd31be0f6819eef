"""Jobs as server-sent events: one reader of the catalog for each job, however many watch it.

A watcher that is slow, or was away, gets the present state and none of those that it missed: there
is nothing that an event tells and the state does not. So `Last-Event-ID` changes nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

import orjson
from fastapi import FastAPI

from embedserve.api.job_replies import job_reply
from embedserve.errors import EmbedserveError
from embedserve.services.ingestion import IngestionService

logger = logging.getLogger(__name__)

PERIOD_S = 0.3
"""How often the catalog is asked for a job that is watched; a row there gives no event."""
HEARTBEAT_S = 15.0
"""Silence after which a comment is sent, so that nothing between takes the connection for dead."""
ENDED = ("succeeded", "succeeded_with_errors", "failed", "cancelled")


class _Feed:
    """The present state of one job, for all who watch it."""

    def __init__(self) -> None:
        self.watchers = 0
        self.number = 0
        self.frame = b""
        self.is_over = False
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def publish(self, state: bytes, *, is_end: bool) -> None:
        """Let all watchers see a state."""
        self.number += 1
        name = b"end" if is_end else b"state"
        self.frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (self.number, name, state)
        self.is_over = is_end
        self._wake()

    def close(self) -> None:
        """Let all watchers go, without an end of the job."""
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class JobFeeds:
    """The feeds of the jobs that are watched now. For one event loop."""

    def __init__(self, ingestion: IngestionService) -> None:
        self._ingestion = ingestion
        self._feeds: dict[str, _Feed] = {}

    def join(self, job_id: str) -> _Feed:
        """Return the feed of a job, started when nobody watched it before."""
        feed = self._feeds.get(job_id)
        if feed is None or feed.is_over:
            feed = self._feeds[job_id] = _Feed()
            feed.task = asyncio.create_task(self._read(job_id, feed))
        feed.watchers += 1
        return feed

    def leave(self, job_id: str, feed: _Feed) -> None:
        """Stop watching; the last one ends the reading."""
        feed.watchers -= 1
        if feed.watchers:
            return
        if feed.task:
            feed.task.cancel()
        if self._feeds.get(job_id) is feed:
            del self._feeds[job_id]

    async def _read(self, job_id: str, feed: _Feed) -> None:
        """Ask for the job again and again and publish what changed."""
        shown = b""
        try:
            while not self._ingestion.is_stopping:
                reply = job_reply(await asyncio.to_thread(self._ingestion.report, job_id))
                state, is_end = orjson.dumps(reply), reply["status"] in ENDED
                if state != shown:
                    feed.publish(state, is_end=is_end)
                    shown = state
                if is_end:
                    return
                await asyncio.sleep(PERIOD_S)
        except EmbedserveError as error:  # watchers come again, and are told then
            logger.warning("job %s can no longer be watched: %s", job_id, error)
        finally:
            feed.close()


def feeds(app: FastAPI, ingestion: IngestionService) -> JobFeeds:
    """Return the app's feeds."""
    if not hasattr(app.state, "job_feeds"):
        app.state.job_feeds = JobFeeds(ingestion)
    found: JobFeeds = app.state.job_feeds
    return found


async def events(
    found: JobFeeds, job_id: str, *, heartbeat_s: float = HEARTBEAT_S
) -> AsyncIterator[bytes]:
    """Give the state of a job and each later one until it ends."""
    feed = found.join(job_id)
    seen = 0
    try:
        while True:
            changed = feed.changed  # before the question, so that no change after it is missed
            if feed.number != seen:
                seen = feed.number
                yield feed.frame
                continue
            if feed.is_over:
                return
            try:
                async with asyncio.timeout(heartbeat_s):
                    await changed.wait()
            except TimeoutError:
                yield b": nothing new\n\n"
    finally:
        found.leave(job_id, feed)
