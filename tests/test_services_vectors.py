"""Vectors for requests: kept ones, ones under way, and what happens when their owner leaves."""

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import ModelError, NotFiniteError, OverloadedError, TextFailedError
from embedserve.services.mailbox import Mailbox
from embedserve.services.vectors import VectorSource
from embedserve.types import EncoderSpec, Lane, Vectors


class SlowEncoder:
    """Gives each text (its first id, its length), when `release` is called."""

    def __init__(self) -> None:
        path = Path("unused")
        self.spec = EncoderSpec("a" * 64, path, path, max_tokens=8, dimensions=2)
        self.asked: list[list[int]] = []
        self._waiting: list[tuple[Future[Vectors], list[TokenizedText]]] = []

    def submit(
        self,
        texts: list[TokenizedText],
        *,
        lane: Lane,
        when_full: WhenFull,
        timeout_s: float | None,
    ) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        self.asked.append([int(text.ids[0]) for text in texts])
        self._waiting.append((future, texts))
        return future

    def release(self, error: ModelError | None = None) -> None:
        waiting, self._waiting = self._waiting, []
        for future, texts in waiting:
            if not future.set_running_or_notify_cancel():
                continue
            if error:
                future.set_exception(error)
            else:
                rows = [[text.ids[0], len(text.ids)] for text in texts]
                future.set_result(np.array(rows, dtype=np.float32))


def text(value: int) -> TokenizedText:
    return TokenizedText(np.array([value, 1, 2]), is_truncated=False)


async def ask(source: VectorSource, encoder: SlowEncoder, *values: int) -> list[float]:
    texts = [text(value) for value in values]
    rows = await source.vectors(cast(Encoder, encoder), texts, lane="small")
    return [float(row[0]) for row in rows]


async def start(*asked: "asyncio.Task[list[float]]") -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_text_is_computed_once_within_a_request_and_after_it() -> None:
    async def run() -> None:
        source, encoder = VectorSource(VectorCache(10_000)), SlowEncoder()
        first = asyncio.ensure_future(ask(source, encoder, 5, 6, 5))
        await start(first)
        encoder.release()
        assert await first == [5, 6, 5]
        assert await ask(source, encoder, 6, 5) == [6, 5]
        assert encoder.asked == [[5, 6]]

    asyncio.run(run())


def test_requests_at_once_share_what_they_have_in_common() -> None:
    async def run() -> None:
        source, encoder = VectorSource(VectorCache(10_000)), SlowEncoder()
        first = asyncio.ensure_future(ask(source, encoder, 1, 2))
        second = asyncio.ensure_future(ask(source, encoder, 2, 3))
        await start(first, second)
        assert encoder.asked == [[1, 2], [3]]
        encoder.release()
        assert await first == [1, 2]
        assert await second == [2, 3]

    asyncio.run(run())


@pytest.mark.parametrize("leaves", [True, False], ids=["owner leaves", "owner fails"])
def test_who_waits_for_another_request_computes_when_that_one_ends_badly(leaves: bool) -> None:
    async def run() -> None:
        source, encoder = VectorSource(VectorCache(10_000)), SlowEncoder()
        owner = asyncio.ensure_future(ask(source, encoder, 1))
        guest = asyncio.ensure_future(ask(source, encoder, 1))
        await start(owner, guest)
        if leaves:
            owner.cancel()
        else:
            encoder.release(ModelError("broken"))
        with pytest.raises(asyncio.CancelledError if leaves else ModelError):
            await owner
        await start(guest)
        encoder.release()
        assert await guest == [1]
        assert encoder.asked == [[1], [1]]

    asyncio.run(run())


def test_without_a_cache_every_text_is_computed() -> None:
    async def run() -> None:
        source, encoder = VectorSource(VectorCache(0)), SlowEncoder()
        asked = asyncio.ensure_future(ask(source, encoder, 5, 5))
        await start(asked)
        encoder.release()
        assert await asked == [5, 5]
        assert encoder.asked == [[5, 5]]

    asyncio.run(run())


def test_numbers_that_are_none_are_refused_and_not_kept() -> None:
    class Broken(SlowEncoder):
        def submit(
            self,
            texts: list[TokenizedText],
            *,
            lane: Lane,
            when_full: WhenFull,
            timeout_s: float | None,
        ) -> "Future[Vectors]":
            future: Future[Vectors] = Future()
            future.set_result(np.full((len(texts), 2), np.nan, dtype=np.float32))
            return future

    async def run() -> None:
        cache = VectorCache(10_000)
        with pytest.raises(ModelError, match="NaN"):
            await ask(VectorSource(cache), Broken(), 5)
        assert cache.counts().entries == 0

    asyncio.run(run())


def test_a_mailbox_brings_results_errors_and_cancellation() -> None:
    async def run() -> None:
        mailbox = Mailbox()
        futures: list[Future[int]] = [Future() for _ in range(4)]
        waiting = [asyncio.ensure_future(mailbox.result(future)) for future in futures]
        await asyncio.sleep(0)
        waiting[3].cancel()

        def finish() -> None:
            futures[0].set_result(1)
            futures[1].set_exception(OverloadedError("full"))
            futures[2].cancel()

        await asyncio.to_thread(finish)
        assert await waiting[0] == 1
        with pytest.raises(OverloadedError):
            await waiting[1]
        for cancelled in waiting[2:]:
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert futures[3].cancelled(), "what nobody waits for is dropped"

    asyncio.run(run())


class BadEncoder(SlowEncoder):
    """Gives no numbers to texts that begin with 7."""

    def submit(
        self,
        texts: list[TokenizedText],
        *,
        lane: Lane,
        when_full: WhenFull,
        timeout_s: float | None,
    ) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        rows = [[np.nan if text.ids[0] == 7 else 1, 1] for text in texts]
        future.set_result(np.array(rows, dtype=np.float32))
        return future


def test_vectors_that_are_no_numbers_are_named_by_their_texts() -> None:
    asking = ask(VectorSource(VectorCache(10_000)), BadEncoder(), 5, 7, 6, 7)
    with pytest.raises(NotFiniteError, match="NaN or Inf") as refused:
        asyncio.run(asking)
    assert refused.value.positions == (1, 3)


def test_good_rows_of_a_run_are_kept_when_others_are_no_numbers() -> None:
    async def run() -> None:
        source = VectorSource(VectorCache(10_000))
        with pytest.raises(NotFiniteError):
            await ask(source, BadEncoder(), 5, 7, 6)
        unused = SlowEncoder()
        assert await ask(source, unused, 5, 6) == [1, 1]
        assert unused.asked == []

    asyncio.run(run())


class PoisonedEncoder(SlowEncoder):
    """Cannot run texts that begin with 7; names the first by its place among those submitted."""

    def submit(
        self,
        texts: list[TokenizedText],
        *,
        lane: Lane,
        when_full: WhenFull,
        timeout_s: float | None,
    ) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        wrong = [row for row, text in enumerate(texts) if text.ids[0] == 7]
        if wrong:
            future.set_exception(TextFailedError("poison", wrong[:1]))
        else:
            future.set_result(np.ones((len(texts), 2), dtype=np.float32))
        return future


def test_text_that_the_engine_cannot_run_is_named_by_where_the_caller_has_it() -> None:
    async def run() -> None:
        source = VectorSource(VectorCache(10_000))
        await ask(source, PoisonedEncoder(), 5, 6)
        with pytest.raises(
            TextFailedError, match="Text 3, 5 could not be embedded: poison"
        ) as refused:
            await ask(source, PoisonedEncoder(), 5, 6, 8, 7, 5, 7)
        assert refused.value.positions == (3, 5)

    asyncio.run(run())
