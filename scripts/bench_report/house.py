"""The whole server in a process that can also be asked for its engine alone.

One file in one engine runs up to a quarter faster or slower from start to start, by where its
memory came to lie. Only what runs in one process on one loaded graph can be compared closely.
"""

import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from embedserve.bootstrap.address import listen
from embedserve.bootstrap.house import open_house
from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.settings import read_settings
from scripts.bench_report.engine import LENGTHS, Engine, Race, Speeds, compare, prepare
from scripts.bench_report.texts import Texts
from scripts.bench_report.web import config

_TIMES = 300
_START_S = 60


@dataclass(frozen=True)
class Parts:
    """Milliseconds that the parts of a request take by themselves, on an idle machine."""

    tokenize_query: float
    run_query: float
    submit_query: float
    """From the caller's thread through the scheduler to a worker, the run, and back."""
    tokenize_bulk: float


class Residents:
    """What lives in the process: the server, its engine, and work prepared for it."""

    def __init__(self, home: Path, model: str, seconds: float) -> None:
        os.chdir(home)  # no project folder: no definitions are picked up by chance
        # No cache: texts come again, and each time they are to be computed.
        settings = read_settings({"home": home, "cache_bytes": 0}, {})
        with ExitStack() as stack:
            listener = stack.enter_context(listen("127.0.0.1", 0))
            house = stack.enter_context(open_house(settings))
            # Below the public door on purpose: the same loaded graph is to be run without it.
            encoder: Encoder = house.services.embedding._source.encoders.get(model)
            _serve(uvicorn.Server(config(house.app)), listener, stack)
            self._stack = stack.pop_all()
        self.port: int = listener.getsockname()[1]
        self._encoder, self._backend = encoder, encoder._backend
        self._engine = Engine(encoder._backend, encoder._scheduler, encoder.spec.dimensions)
        self._texts = Texts(ModelTokenizer(encoder.spec.tokenizer_path), seed=11)
        self._seconds = seconds
        self._races: dict[str, Race] = {}

    def compare(self, length: str) -> Speeds:
        """Time the bare engine and the scheduler on the same work."""
        if length not in self._races:
            most = self._encoder.spec.max_tokens
            lengths = [min(tokens, most) for tokens in LENGTHS[length]]
            self._races[length] = prepare(self._engine, lengths, self._texts.ids, self._seconds)
        return compare(self._races[length])

    def parts(self, query_tokens: int, bulk_texts: int, bulk_tokens: int) -> Parts:
        """Time the parts of a query and of a large request one by one."""
        query, bulk = self._texts.make(1, query_tokens), self._texts.make(bulk_texts, bulk_tokens)
        tokenized = self._encoder.tokenize(query)
        ids = [text.ids for text in tokenized]
        return Parts(
            tokenize_query=_median_ms(lambda: self._encoder.tokenize(query)),
            run_query=_median_ms(lambda: self._backend.run(ids)),
            submit_query=_median_ms(lambda: self._encoder.submit(tokenized, lane="small").result()),
            tokenize_bulk=_median_ms(lambda: self._encoder.tokenize(bulk), _TIMES // 10),
        )

    def close(self) -> None:
        """Stop in order."""
        self._stack.close()


class House:
    """The process, from outside. Methods are those of `Residents`."""

    def __init__(self, home: Path, model: str, seconds: float) -> None:
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.port: int = self._process.submit(_move_in, home, model, seconds).result()

    def compare(self, length: str) -> Speeds:
        """See `Residents.compare`."""
        speeds: Speeds = self._process.submit(_call, "compare", length).result()
        return speeds

    def parts(self, query_tokens: int, bulk_texts: int, bulk_tokens: int) -> Parts:
        """See `Residents.parts`."""
        asked = ("parts", query_tokens, bulk_texts, bulk_tokens)
        parts: Parts = self._process.submit(_call, *asked).result()
        return parts

    def close(self) -> None:
        """Stop the server and end the process."""
        self._process.submit(_call, "close").result()
        self._process.shutdown()


def _serve(server: uvicorn.Server, listener: socket.socket, stack: ExitStack) -> None:
    """Serve on a thread until `stack` is closed; return when requests are answered."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    stack.callback(stop)
    deadline = time.monotonic() + _START_S
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise SystemExit("The server did not start.")
        time.sleep(0.01)


def _median_ms(call: Callable[[], object], times: int = _TIMES) -> float:
    took = []
    for _ in range(max(times, 3)):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1000


_living: dict[str, Residents] = {}


def _move_in(home: Path, model: str, seconds: float) -> int:
    _living["here"] = Residents(home, model, seconds)
    return _living["here"].port


def _call(name: str, *arguments: object) -> Any:  # noqa: ANN401  # what the method returns
    return getattr(_living["here"], name)(*arguments)
