"""One round measures everything once, in turns; every process is started anew for it.

Ratios are taken within a round, between figures of the same minutes, so that a change of the
machine's speed touches both sides alike.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from embedserve.engine.tokenizer import ModelTokenizer
from scripts.bench_report import hot, roof
from scripts.bench_report.figures import LENGTHS, ROUTES, Sheet
from scripts.bench_report.house import House
from scripts.bench_report.load import Client, Load, Outcome, request
from scripts.bench_report.server import Job, chunks_per_s, serving
from scripts.bench_report.texts import Texts
from scripts.serving import fresh_home

BULK_TEXTS, BULK_TOKENS, BULK_CLIENTS = 64, 128, 2
QUERY_TOKENS, QUERY_CLIENTS = 16, 32
QUERIES_PER_S = 5
# Bulk work runs in smaller batches for two seconds after a small request; see engine/lanes.py.
_QUIET_S = 2.2
_BULK_BODIES, _QUERY_BODIES = 24, 512


@dataclass(frozen=True)
class Rounds:
    """How much is measured."""

    count: int
    seconds: float
    """Of each rate."""
    calls: int
    """Of each latency."""
    hot_calls: int
    """Of each route with one text; a tenth of it with many."""
    new_texts: int
    """Texts that the cache has not seen, for each of its two measurements."""


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    models: Path
    """Models folder of a home."""
    model: str
    tokenizer: Path
    folder: Path
    """To be ingested."""


def tell(words: str) -> None:
    """Show what goes on."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def measure(subject: Subject, rounds: Rounds) -> Sheet:
    """Run all rounds."""
    sheet, texts = Sheet(), Texts(ModelTokenizer(subject.tokenizer))
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Client())) for _ in range(2))
        bench = Bench(subject, rounds, sheet, texts, (first, second))
        for number in range(rounds.count):
            tell(f"round {number + 1} of {rounds.count}")
            bench.engine_and_http()
            bench.defaults()
            bench.ingestion_beside_queries()
            bench.hot_routes()
    return sheet


class Bench:
    """The parts of a round; each notes its figures on the sheet."""

    def __init__(
        self,
        subject: Subject,
        rounds: Rounds,
        sheet: Sheet,
        texts: Texts,
        clients: tuple[Client, Client],
    ) -> None:
        self._subject, self._rounds, self._sheet, self._texts = subject, rounds, sheet, texts
        self._client, self._other = clients
        self._bulk = self._requests(_BULK_BODIES, BULK_TEXTS, BULK_TOKENS)
        self._queries = self._requests(_QUERY_BODIES, 1, QUERY_TOKENS)

    def engine_and_http(self) -> None:
        """Measure bare engine, scheduler and HTTP on one loaded graph, and the machine's roof."""
        seconds, model = self._rounds.seconds, self._subject.model
        with ExitStack() as stack:
            home = stack.enter_context(fresh_home(self._subject.models))
            house = stack.enter_context(closing(House(home, model, seconds)))
            # 128 last: HTTP's bulk, which is compared with it, follows at once.
            for length in sorted(LENGTHS, key=lambda name: name == str(BULK_TOKENS)):
                speeds = house.compare(length)
                self._sheet.add(f"bare {length}", speeds.bare)
                self._sheet.add(f"scheduler {length}", speeds.scheduled)
            self._sheet.add("scheduler texts", speeds.scheduled / BULK_TOKENS)
            self._over_http(house.port)
            parts = house.parts(QUERY_TOKENS, BULK_TEXTS, BULK_TOKENS)
            for name, value in asdict(parts).items():
                self._sheet.add(f"part {name}", value)
        if speed := roof.int8_operations_per_s(seconds / 4):
            self._sheet.add("roof", speed)

    def defaults(self) -> None:
        """Measure the cache, and ingestion alone, on a server with its defaults."""
        with serving(self._subject.models, allow=self._subject.folder) as port:
            self._cache(port)
            time.sleep(_QUIET_S)
            job = Job(port, self._subject.folder).wait()
        self._sheet.add("ingestion", chunks_per_s(job))
        self._sheet.add("chunks", job["chunks_embedded"])

    def ingestion_beside_queries(self) -> None:
        """Measure an ingestion while queries come, each with a text of its own."""
        queries = self._requests(self._rounds.new_texts, 1, QUERY_TOKENS)
        with serving(self._subject.models, allow=self._subject.folder) as port:
            self._client.run(Load(port, queries[-3:], calls=3))
            load = Load(port, queries, every_s=1 / QUERIES_PER_S)
            with self._client.beside(load) as beside:
                job = Job(port, self._subject.folder).wait()
        self._sheet.add("ingestion beside queries", chunks_per_s(job))
        self._latency("beside ingestion", beside.result())

    def hot_routes(self) -> None:
        """Measure the routes with vectors that are ready, against the framework's default way."""
        with ExitStack() as stack:
            servers = {kind: stack.enter_context(hot.hot_server(kind)) for kind in hot.KINDS}
            self._round_trips(servers)
            for route in ROUTES:
                for count in {1, route.most_texts}:
                    body = hot.body(route, self._texts.make(count, QUERY_TOKENS))
                    calls = self._rounds.hot_calls // (1 if count == 1 else 10)
                    size = len(servers["ours"].reply(route.path, body))
                    for kind, server in servers.items():
                        path = f"/{size}" if kind == "floor" else route.path
                        cpu_us = server.cpu_us(path, body, max(3, calls))
                        self._sheet.add(f"{kind} {route.name} {count}", cpu_us)

    def _round_trips(self, servers: Mapping[str, hot.HotServer]) -> None:
        """Measure how long a query of one text takes without an engine, there and back."""
        body = hot.body(ROUTES[0], self._texts.make(1, QUERY_TOKENS))
        size = len(servers["ours"].reply(ROUTES[0].path, body))
        for kind, path in (("floor", f"/{size}"), ("ours", ROUTES[0].path)):
            load = Load(servers[kind].port, [request(path, body)], calls=self._rounds.calls)
            self._client.run(load)  # warm
            self._latency(f"{kind} round trip", self._client.run(load))

    def _over_http(self, port: int) -> None:
        seconds, calls = self._rounds.seconds, self._rounds.calls
        bulk = Load(port, self._bulk, BULK_CLIENTS, seconds=4 * seconds)
        bulk_texts = self._client.run(bulk).calls_per_s() * BULK_TEXTS
        self._sheet.add("http bulk", bulk_texts)
        single = Load(port, self._queries, calls=calls)
        self._client.run(Load(port, self._queries, calls=max(3, calls // 10)))  # warm
        self._latency("idle", self._client.run(single))
        short = Load(port, self._queries, QUERY_CLIENTS, seconds=2 * seconds)
        self._sheet.add("http short", self._client.run(short).calls_per_s())
        with self._other.beside(Load(port, self._bulk, BULK_CLIENTS)) as beside:
            self._latency("beside bulk", self._client.run(single))
        self._sheet.add("bulk beside queries", beside.result().calls_per_s() * BULK_TEXTS)

    def _cache(self, port: int) -> None:
        """Ask for one text again and again, and for texts that were never asked for."""
        new = self._requests(2 * self._rounds.new_texts, 1, QUERY_TOKENS)
        count = self._rounds.new_texts
        for name, alone, many in (("miss", new[:count], new[count:]), ("hit", new[:1], new[:1])):
            warm = self._queries if name == "miss" else alone
            self._client.run(Load(port, warm, calls=20))
            # No text twice: as many calls as there are texts.
            self._latency(name, self._client.run(Load(port, alone, calls=count)))
            crowd = self._client.run(Load(port, many, QUERY_CLIENTS, calls=count))
            self._sheet.add(f"{name} rate", crowd.calls_per_s())

    def _latency(self, name: str, outcome: Outcome) -> None:
        for percent in (50, 99):
            self._sheet.add(f"{name} p{percent}", outcome.percentile_ms(percent))

    def _requests(self, count: int, texts: int, tokens: int) -> list[bytes]:
        bodies = self._texts.bodies(self._subject.model, count, texts, tokens)
        return [request("/api/embed", body) for body in bodies]
