"""A short attack on a live server, and whether the judge of such attacks sees what it must."""

import random

from scripts.fuzz_report.broken import WEIGHTS, Request, requests
from scripts.fuzz_report.judge import MEMORY_BYTES, Report, judge, judge_memory, table
from scripts.fuzz_report.routes import ABSENT, CHANGING, Route, routes_of
from scripts.fuzz_report.warm import call, probe
from scripts.fuzz_report.wire import Answer, send_all
from tests.live import LiveServer

REQUESTS = 300
SEED = 3


def test_broken_requests_break_nothing(server: LiveServer) -> None:
    port = int(server.http.base_url.port or 0)
    document = server.http.get("/openapi.json").json()
    # This server is shared: no indexes are made on it.
    routes = [route for route in routes_of(document) if route.method != "PUT"]
    before = probe(port)
    answers = send_all(port, requests(routes, REQUESTS, SEED))
    report = Report(SEED, len(routes))
    judge(answers, report)
    assert report.failures == []
    assert report.requests == REQUESTS
    assert {answer.status for answer in answers} >= {200, 400, 404}
    assert probe(port) == before
    assert call(port, "/health")["status"] == "ok"
    assert " ERROR " not in server.log()


def test_the_same_seed_gives_the_same_requests_of_every_kind() -> None:
    routes = [Route("POST", "/api/embed", {"model": "all-minilm", "input": ["a"]})]
    made = requests(routes, 1000, SEED)
    assert made == requests(routes, 1000, SEED)
    assert made != requests(routes, 1000, SEED + 1)
    assert len({request.kind for request in made}) == len(WEIGHTS)


def test_what_changes_models_never_names_the_real_one() -> None:
    chance = random.Random(SEED)
    for path in CHANGING:
        route = Route("DELETE", path, {"model": ABSENT})
        for make in WEIGHTS:
            for _ in range(8):
                assert b"all-minilm" not in b"".join(make(chance, route).segments)


def test_faults_are_noted() -> None:
    whole = Request("whole", Route("GET", "/", None), (b"x",))
    cut = Request("cut", Route("GET", "/", None), (b"x",), ending="left")
    good = [Answer(whole, 503, 0.1), Answer(whole, 404, 0.1), Answer(cut, None, 0.1)]
    bad = [Answer(cut, 500, 0.1), Answer(whole, None, 0.1), Answer(whole, None, 30, is_late=True)]
    report = Report(1, 1)
    judge(good, report)
    judge_memory(report)
    assert report.failures == []
    report.resident_after_bytes = MEMORY_BYTES + 1
    judge(bad, report)
    judge_memory(report)
    reasons = [failure.partition(":")[0] for failure in report.failures]
    assert reasons[:3] == ["status 500", "closed without an answer", "no answer in time"]
    assert "memory grew" in reasons[3]
    assert "1 x 500" in table(report)
    assert '"requests": 3' in report.as_json()


def test_routes_come_from_the_document_with_bodies() -> None:
    document = {
        "paths": {
            "/a/{name}/{place}": {"get": {}},
            "/b": {"post": {"requestBody": {"content": {"x": {"schema": {"$ref": "#/c/Body"}}}}}},
        },
        "c": {
            "Body": {
                "properties": {
                    "model": {"type": "string"},
                    "k": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "n": {"$ref": "#/c/Number"},
                }
            },
            "Number": {"type": "number"},
        },
    }
    first, second = routes_of(document)
    assert first == Route("GET", f"/a/{ABSENT}/{ABSENT}", None)
    assert second.body == {"model": "all-minilm", "k": 3, "n": 0.5}
