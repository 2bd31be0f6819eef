"""The page for Prometheus, from a live server."""

import uuid

from prometheus_client.parser import text_string_to_metric_families

from tests.live import LiveServer

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(server: LiveServer) -> Samples:
    reply = server.http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def post(server: LiveServer, path: str, body: object) -> int:
    return server.http.post(path, json=body).status_code


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    key = (name, tuple(sorted(labels.items())))
    return after[key] - before.get(key, 0)


def test_what_happens_is_counted(server: LiveServer) -> None:
    new = [f"a text that nobody asked for before {uuid.uuid4().hex}" for _ in range(3)]
    before = samples(server)
    assert post(server, "/api/embed", {"model": "all-minilm", "input": [*new, new[0]]}) == 200
    assert post(server, "/api/embed", {"model": "all-minilm", "input": new[1]}) == 200
    assert post(server, "/v1/embeddings", {"model": "no-such-model", "input": "x"}) == 404
    after = samples(server)
    requests = "embedserve_requests_total"
    assert grown(before, after, requests, route="/api/embed", status="200") == 2
    assert grown(before, after, requests, route="/v1/embeddings", status="404") == 1
    assert grown(before, after, "embedserve_request_seconds_count", route="/api/embed") == 2
    assert grown(before, after, "embedserve_texts_total", lane="small") == 3, "each text ran once"
    assert grown(before, after, "embedserve_tokens_total", lane="small") >= 3 * 10
    assert grown(before, after, "embedserve_cache_hits_total") >= 1
    assert grown(before, after, "embedserve_cache_entries") == 3
    assert after["embedserve_queue_tokens", (("lane", "small"),)] == 0
    assert after["embedserve_loaded_models", ()] >= 1
    assert after["embedserve_worker_restarts_total", ()] == 0
    assert after["process_resident_memory_bytes", ()] > 50e6


def test_what_is_refused_or_cut_is_counted(server: LiveServer) -> None:
    before = samples(server)
    assert post(server, "/api/embed", {"model": "all-minilm", "input": ["word " * 999] * 3}) == 200
    assert post(server, "/api/embed", {"model": "all-minilm", "input": ["a"] * 10_001}) == 413
    assert (
        post(server, "/v1/embeddings", {"model": "all-minilm", "input": "a" * 2**23 + "a"}) == 413
    )
    late = server.http.post(
        "/api/embed",
        json={"model": "all-minilm", "input": [f"{uuid.uuid4()} " * 20] * 50},
        headers={"X-Request-Timeout-Ms": "1"},
    )
    assert late.status_code == 503
    after = samples(server)
    refusals = "embedserve_refusals_total"
    assert grown(before, after, "embedserve_truncated_texts_total") == 3
    assert grown(before, after, refusals, reason="too_large") == 2
    assert grown(before, after, refusals, reason="deadline") == 1
    assert grown(before, after, refusals, reason="overloaded") == 0
    assert after["embedserve_model_loads_total", ()] >= 1
    assert grown(before, after, "embedserve_model_loads_total") == 0
    assert after["embedserve_loaded_models_bytes", ()] > 10e6
    for reason in ("expired", "memory", "removed"):
        assert grown(before, after, "embedserve_model_unloads_total", reason=reason) == 0
