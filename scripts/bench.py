"""Measure the engine alone and the server around it, in turns, and print a Markdown table.

Every figure is the median of several rounds; each round measures everything once, so that a
change of the machine's speed touches all of it alike. Clients, server and engine share this
machine's cores. Texts are made of words, have an exact length in tokens, and never repeat.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from embedserve.bootstrap import open_engine
from embedserve.engine.cores import available_cores
from embedserve.engine.encoder import Encoder
from embedserve.settings import Settings, read_settings

MODEL = "all-minilm"
WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research girl
guy moment air teacher force education
"""
BULK_TEXTS, BULK_TOKENS, BULK_CALLERS = 64, 128, 2
SHORT_TOKENS, SHORT_CALLERS = 16, 32
START_S = 60

Call = Callable[[list[str]], object]
"""Embed texts and wait for the vectors."""


@dataclass
class Load:
    """What one caller, or several at once, send over and over."""

    texts: int
    tokens: int
    callers: int


BULK = Load(BULK_TEXTS, BULK_TOKENS, BULK_CALLERS)
SHORT = Load(1, SHORT_TOKENS, SHORT_CALLERS)
SINGLE = Load(1, SHORT_TOKENS, 1)


@dataclass
class Outcome:
    """Texts per second of all callers together, and the milliseconds of each call."""

    texts_per_s: float
    calls_ms: list[float]

    def percentile_ms(self, percent: int) -> float:
        """Return the time that `percent` of the calls stayed within."""
        ordered = sorted(self.calls_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class Texts:
    """Texts of an exact number of tokens; two of them are never equal."""

    def __init__(self, encoder: Encoder) -> None:
        [empty] = encoder.tokenize([""])
        self._special_tokens = len(empty.ids)
        words = WORDS.split()
        lengths = zip(words, encoder.tokenize(words), strict=True)
        self._words = [word for word, text in lengths if len(text.ids) == self._special_tokens + 1]
        self._random = random.Random(7)
        self._lock = threading.Lock()
        for tokens in (SHORT_TOKENS, BULK_TOKENS):
            [text] = encoder.tokenize(self.make(1, tokens))
            if len(text.ids) != tokens:
                raise SystemExit(f"A text of {tokens} tokens came out with {len(text.ids)}.")

    def make(self, count: int, tokens: int) -> list[str]:
        """Return texts of `tokens` tokens, special ones included."""
        words = tokens - self._special_tokens
        with self._lock:
            return [" ".join(self._random.choices(self._words, k=words)) for _ in range(count)]


def measure(texts: Texts, load: Load, make_call: Callable[[], Call], seconds: float) -> Outcome:
    """Let every caller call for `seconds`; calls that end later count with the time they took."""
    calls_ms: list[float] = []
    failures: list[BaseException] = []
    began = time.perf_counter()

    def work() -> None:
        try:
            call = make_call()
            while time.perf_counter() - began < seconds:
                batch = texts.make(load.texts, load.tokens)
                sent = time.perf_counter()
                call(batch)
                calls_ms.append((time.perf_counter() - sent) * 1000)
        except BaseException as error:  # reported by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(load.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Outcome(len(calls_ms) * load.texts / (time.perf_counter() - began), calls_ms)


@contextmanager
def background(texts: Texts, load: Load, make_call: Callable[[], Call]) -> Iterator[None]:
    """Keep a load running; leaving waits for the calls in hand."""
    is_over = threading.Event()

    def work() -> None:
        call = make_call()
        while not is_over.is_set():
            call(texts.make(load.texts, load.tokens))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(load.callers)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)  # until the queue is full
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@contextmanager
def server(models: Path) -> Iterator[int]:
    """Run `embedserve serve` in a home of its own and give its port."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "models").symlink_to(models.resolve())
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "embedserve", "serve", "--port", "0", "--home", str(home)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            yield _port(process, log)
        finally:
            process.terminate()
            process.wait(60)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"serving at http://[^:]+:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise SystemExit(f"The server did not start:\n{log.read_text()}")


def http_call(port: int) -> Call:
    """Return a call of `/api/embed` over a connection that stays open; replies are not parsed."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)

    def call(texts: list[str]) -> None:
        body = json.dumps({"model": MODEL, "input": texts})
        connection.request("POST", "/api/embed", body)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise SystemExit(f"/api/embed answered {reply.status}: {content[:300]!r}")

    return call


@dataclass
class Rounds:
    """One value from each round, by row of the table."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: str, value: float) -> None:
        """Note a round's value."""
        self.values.setdefault(row, []).append(value)

    def median(self, row: str) -> float:
        """Return the middle of the rounds' values."""
        return statistics.median(self.values[row])

    def ratio(self, row: str, base: str) -> float:
        """Return the median of the ratios within each round."""
        pairs = zip(self.values[row], self.values[base], strict=True)
        return statistics.median(value / other for value, other in pairs)


ROWS = {
    "engine bulk": "engine: 2 callers, 64 texts of 128 tokens each",
    "http bulk": "HTTP: 2 clients, 64 texts of 128 tokens each",
    "engine short": "engine: 32 callers, one text of 16 tokens each",
    "http short": "HTTP: 32 clients, one text of 16 tokens each",
    "idle p50": "HTTP: one client, one text of 16 tokens, p50",
    "idle p99": "the same, p99",
    "busy p50": "the same beside the 2 bulk clients, p50",
    "busy p99": "the same beside the 2 bulk clients, p99",
}
BASES = {
    "http bulk": "engine bulk",
    "http short": "engine short",
    "busy p50": "idle p50",
    "busy p99": "idle p99",
}


def run_round(
    rounds: Rounds, texts: Texts, engine: dict[str, Call], port: int, *, seconds: float
) -> None:
    """Measure every row once."""

    def over_http() -> Call:
        return http_call(port)

    for name, load in (("bulk", BULK), ("short", SHORT)):
        alone = measure(texts, load, lambda name=name: engine[name], seconds)  # type: ignore[misc]
        rounds.add(f"engine {name}", alone.texts_per_s)
        rounds.add(f"http {name}", measure(texts, load, over_http, seconds).texts_per_s)
    idle = measure(texts, SINGLE, over_http, seconds)
    with background(texts, BULK, over_http):
        busy = measure(texts, SINGLE, over_http, seconds)
    for name, outcome in (("idle", idle), ("busy", busy)):
        rounds.add(f"{name} p50", outcome.percentile_ms(50))
        rounds.add(f"{name} p99", outcome.percentile_ms(99))


def table(rounds: Rounds) -> str:
    """Return the results as Markdown."""
    lines = ["| | median | lowest to highest | ratio |", "|---|---|---|---|"]
    for row, label in ROWS.items():
        values = rounds.values[row]
        unit = "ms" if row in ("idle p50", "idle p99", "busy p50", "busy p99") else "texts/s"
        digits = 1 if unit == "ms" else 0
        base = BASES.get(row)
        ratio = f"{rounds.ratio(row, base):.2f} of {base}" if base else ""
        spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
        lines.append(f"| {label} | {rounds.median(row):.{digits}f} {unit} | {spread} | {ratio} |")
    return "\n".join(lines)


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=Path, required=True, help="models folder of a home")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (3)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    arguments = parser.parse_args()
    settings: Settings = read_settings({"home": arguments.models.parent})
    rounds = Rounds()
    with open_engine(settings) as engine, server(arguments.models) as port:
        encoder = engine.encoders.get(MODEL)
        texts = Texts(encoder)
        calls: dict[str, Call] = {
            "bulk": lambda batch: encoder.encode(batch, lane="bulk"),
            "short": lambda batch: encoder.encode(batch, lane="small"),
        }
        run_round(Rounds(), texts, calls, port, seconds=min(1.0, arguments.seconds))  # warm up
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            run_round(rounds, texts, calls, port, seconds=arguments.seconds)
    print(
        f"{MODEL}, {cpu_name()}, {available_cores()} cores (one engine worker each), load ", end=""
    )
    print(f"{os.getloadavg()[0]:.1f} at the end; {arguments.rounds} rounds of ", end="")
    print(f"{arguments.seconds:g} s a measurement\n\n{table(rounds)}")


if __name__ == "__main__":
    main()
