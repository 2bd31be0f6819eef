"""The parts of scripts/bench measure what they say."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.models.installed import resolve
from embedserve.services.models import encoder_spec
from embedserve.types import TokenIds
from scripts.bench_report import engine, hot, machine, roof, server
from scripts.bench_report.figures import ROUTES
from scripts.bench_report.house import House
from scripts.bench_report.load import Client, Load, Outcome, perform, request
from scripts.bench_report.texts import Texts
from scripts.serving import fresh_home
from tests.live import LiveServer
from tests.sum_backend import DIMENSIONS, SumBackend, scheduler

EMBED = "/api/embed"


@pytest.fixture
def backend() -> SumBackend:
    return SumBackend(bucket_tokens=8)


@pytest.fixture
def lane(backend: SumBackend) -> Iterator[engine.Engine]:
    running = scheduler(workers=2, queue_tokens=100_000)
    yield engine.Engine(backend, running, DIMENSIONS)
    running.close()


def ids(length: int) -> TokenIds:
    return np.full(length, 1, dtype=np.int64)


def test_groups_hold_texts_of_one_bucket_up_to_the_budget(backend: SumBackend) -> None:
    texts = [ids(length) for length in [*range(1, 251), *[500] * 3]]
    found = engine.groups(backend, texts)
    assert sorted(len(text) for group in found for text in group) == sorted(map(len, texts))
    for group in found:
        [bucket] = {backend.bucket(len(text)) for text in group}
        assert len(group) == 1 or len(group) * bucket <= engine.GROUP_TOKENS
    assert backend.bucket(len(found[0][0])) == 504


def test_bare_and_scheduled_do_the_same_work(backend: SumBackend, lane: engine.Engine) -> None:
    texts = [ids(length) for length in range(1, 201)]
    race = engine.Race(lane, texts)
    assert race.tokens == sum(range(1, 201))
    for way in (race.bare, race.scheduled):
        backend.batches.clear()
        assert way() > 0
        lengths = [len(text) for batch in backend.batches for text in batch]
        assert sorted(lengths) == list(range(1, 201))


def test_a_failure_of_the_bare_engine_is_not_a_speed(lane: engine.Engine) -> None:
    broken = replace(lane, backend=SumBackend(poison=1))
    with pytest.raises(ValueError, match="poison"):
        engine.Race(broken, [ids(8)] * 4).bare()


def test_work_is_prepared_for_about_the_seconds_asked_for(lane: engine.Engine) -> None:
    race = engine.prepare(lane, [8] * 16, ids, seconds=0.01)
    assert race.tokens % (8 * 16) == 0
    speeds = engine.compare(race)
    assert speeds.bare > 0
    assert speeds.scheduled > 0


@pytest.fixture(scope="module")
def floor() -> Iterator[hot.HotServer]:
    with hot.hot_server("floor") as running:
        yield running


def test_a_load_makes_as_many_calls_as_asked_for(floor: hot.HotServer) -> None:
    requests = [request("/300000", b"{}"), request("/7", b"x" * 200_000)]
    outcome = perform(Load(floor.port, requests, clients=3, calls=20))
    assert len(outcome.calls_ms) == sum(map(len, outcome.ends_s.values())) == 20
    assert outcome.ends_s.keys() == {0, 1, 2}
    assert all(ends == sorted(ends) for ends in outcome.ends_s.values())


def test_a_paced_load_keeps_to_its_rhythm(floor: hot.HotServer) -> None:
    outcome = perform(Load(floor.port, [request("/7", b"{}")], calls=5, every_s=0.05))
    assert outcome.ends_s[0][-1] >= 4 * 0.05


def test_a_load_in_a_process_of_its_own_ends_when_it_is_told(floor: hot.HotServer) -> None:
    load = Load(floor.port, [request("/7", b"{}")], clients=2)
    with closing(Client()) as client:
        with client.beside(load) as beside:
            assert not beside.done()
        assert len(beside.result().calls_ms) > 2
        assert len(client.run(replace(load, calls=3)).calls_ms) == 3


def test_an_answer_that_is_no_success_ends_the_load(server: LiveServer) -> None:
    port = server.http.base_url.port
    assert port
    with pytest.raises(SystemExit, match="400"):
        perform(Load(port, [request(EMBED, b"no JSON")], calls=1))


def test_percentiles_are_of_all_calls() -> None:
    outcome = Outcome([float(n) for n in range(100, 0, -1)])
    assert (outcome.percentile_ms(50), outcome.percentile_ms(99)) == (51, 100)


def test_a_rate_counts_neither_the_start_nor_the_end() -> None:
    # One reply a second and two a second; the second client stopped early.
    assert Outcome([], {0: [3.0, 4.0, 5.0], 1: [2.0, 2.5]}).calls_per_s() == 1 + 2
    with pytest.raises(SystemExit, match="Too short"):
        Outcome([], {0: [3.0, 4.0], 1: [2.0]}).calls_per_s()


@pytest.mark.parametrize("kind", ["ours", "default"])
def test_both_ways_give_the_same_vectors_on_every_route(kind: str) -> None:
    ready = hot.ReadyVectors()
    with hot.hot_server(kind) as running:
        for route in ROUTES:
            for count in {1, route.most_texts}:
                body = hot.body(route, ["a word"] * count)
                answer = json.loads(running.reply(route.path, body))
                vectors = hot.vectors_of(answer)
                assert vectors.shape == (count, hot.DIMENSIONS)
                assert vectors == pytest.approx(ready.rows[:count], abs=1e-7)
        assert running.cpu_us(EMBED, hot.body(ROUTES[0], ["a word"]), calls=20) > 1


def test_the_roofs_graph_multiplies_in_8_bits_and_stays_in_range(tmp_path: Path) -> None:
    model = roof.products(width=64, layers=3)
    assert [node.op_type for node in model.graph.node].count("MatMul") == 3
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {
        "input_ids": np.arange(8, dtype=np.int64).reshape(2, 4),
        "attention_mask": np.ones((2, 4), dtype=np.int64),
    }
    [found] = session.run(None, feeds)
    assert found.shape == (2, 64)
    # Not all clipped to one end: the products would be of zeros.
    assert 0.01 < np.abs(found).mean() < 10


def test_texts_have_the_tokens_they_are_asked_for(model_home: Path) -> None:
    spec = encoder_spec(resolve(model_home / "models", "all-minilm"))
    texts = Texts(ModelTokenizer(spec.tokenizer_path))
    for tokens in (8, 16, 128, 250):
        assert len(texts.ids(tokens)) == tokens
    assert len(set(texts.make(50, 16))) == 50
    [body] = texts.bodies("m", 1, 3, 16)
    assert len(json.loads(body)["input"]) == 3


def test_a_house_serves_and_gives_its_engine_for_comparison(model_home: Path) -> None:
    with fresh_home(model_home / "models") as home:
        house = House(home, "all-minilm", seconds=0.05)
        try:
            body = json.dumps({"model": "all-minilm", "input": "one text"}).encode()
            outcome = perform(Load(house.port, [request(EMBED, body)], calls=3))
            assert len(outcome.calls_ms) == 3
            speeds = house.compare("16")
            assert speeds.bare > 0
            assert speeds.scheduled > 0
            parts = house.parts(16, 2, 32)
            assert min(parts.run_query, parts.submit_query, parts.tokenize_bulk) > 0
        finally:
            house.close()


def test_a_job_gives_its_chunks_per_second(model_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "one.md").write_text("# A title\n\nA paragraph of words.\n")
    with server.serving(model_home / "models", allow=folder) as port:
        job = server.Job(port, folder).wait()
    assert job["chunks_embedded"] == 1
    assert server.chunks_per_s(job) > 0
    with pytest.raises(SystemExit, match="no chunks"):
        server.chunks_per_s({**job, "chunks_embedded": 0})


def test_own_work_is_not_counted_as_that_of_others() -> None:
    watch = machine.Watch()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    busy_s = machine._busy_s() - watch._busy_s
    # The system counts in hundredths of a second.
    assert watch._own_s + 0.4 < machine._own_s() <= watch._own_s + busy_s + 0.1
    assert watch.others() >= 0
