"""`keep_alive` in every form that Ollama's clients send."""

import pytest

from embedserve.api.keep_alive import LONGEST_S, seconds_of
from embedserve.errors import InvalidRequestError
from tests.live import LiveServer


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (300, 300),
        (1.5, 1.5),
        (0, 0),
        (-1, -1),
        (-0.5, -1),
        ("5m", 300),
        ("5m0s", 300),
        ("1.5h", 5400),
        ("1h30m", 5400),
        (".5s", 0.5),
        ("90s", 90),
        ("250ms", 0.25),
        ("1µs", 1e-6),
        ("0", 0),
        ("0s", 0),
        ("-1m", -1),
        ("+1m", 60),
        ("300", 300),
        ("-1", -1),
        (10**30, LONGEST_S),
        ("9999999h", LONGEST_S),
    ],
)
def test_durations_are_seconds(value: object, seconds: float | None) -> None:
    assert seconds_of(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("soon", 'time: invalid duration "soon"'),
        ("-", 'time: invalid duration "-"'),
        ("5m!", 'time: unknown unit "m!" in duration "5m!"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("1" * 200 + "..", 'time: invalid duration "' + "1" * 100 + '..."'),
        (True, "Unsupported type: 'bool'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        ([1], "Unsupported type: '[]interface {}'"),
    ],
)
def test_other_values_are_refused_in_ollamas_words(value: object, message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        seconds_of(value)
    assert refused.value.message == message


@pytest.mark.parametrize("route", ["/api/embed", "/api/embeddings"])
def test_both_routes_take_it_and_the_default_model_stays(server: LiveServer, route: str) -> None:
    for value in ("5m", 0, -1, None):
        body = {"model": "all-minilm", "input": "a", "keep_alive": value}
        assert server.http.post(route, json=body).status_code == 200
    body = {"model": "all-minilm", "input": "a", "keep_alive": "soon"}
    reply = server.http.post(route, json=body)
    assert (reply.status_code, reply.json()) == (400, {"error": 'time: invalid duration "soon"'})
    assert "embedserve_loaded_models 1.0" in server.http.get("/metrics").text
