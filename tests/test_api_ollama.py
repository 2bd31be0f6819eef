"""Ollama's contract on a live server: inputs, errors, truncation, the shapes of answers."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live import LiveServer

SKY = "why is the sky blue?"
LONG = "word " * 2000
TEXTS = 500
"""Of 80 tokens each: a good part of a second on a fast machine, ten on a slow one."""


def embed(server: LiveServer, **fields: object) -> Any:  # noqa: ANN401  JSON of any shape
    reply = server.http.post("/api/embed", json={"model": "all-minilm", **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_root_answers_the_probe(server: LiveServer) -> None:
    assert server.http.get("/").text == "Ollama is running"
    assert server.http.head("/").status_code == 200


def test_version_is_numeric(server: LiveServer) -> None:
    assert all(
        part.isdigit() for part in server.http.get("/api/version").json()["version"].split(".")
    )


def test_embeddings_gives_384_floats_of_unit_length_to_curl(server: LiveServer) -> None:
    # curl -d sends a form content type.
    reply = server.http.post(
        "/api/embeddings",
        content=b'{"model": "all-minilm", "prompt": "Your text here"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    vector = reply.json()["embedding"]
    assert len(vector) == 384
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert list(reply.json()) == ["embedding"]


def test_embeddings_agrees_with_ollamas_published_vector(server: LiveServer) -> None:
    # First values of all-minilm for this prompt in Ollama's own integration test, f16 weights.
    golden = [0.010071031, -0.0017594865, 0.050072223, 0.046929732, 0.05491682]
    ours = embed(server, input=SKY)["embeddings"][0][:5]
    assert np.dot(ours, golden) / np.linalg.norm(ours) / np.linalg.norm(golden) > 0.99


@pytest.mark.parametrize(
    ("value", "count"),
    [("a", 1), (["a", "b"], 2), ("", 0), ([], 0), (None, 0), ([""], 1), (["a", ""], 2), ("   ", 1)],
)
def test_input_may_be_a_text_a_list_or_nothing(
    server: LiveServer, value: object, count: int
) -> None:
    reply = embed(server, input=value)
    assert len(reply["embeddings"]) == count
    assert reply["model"] == "all-minilm"
    assert ("total_duration" in reply) == (value not in ("", [], None))


@pytest.mark.parametrize("value", [[1, 2], [None], [["a"]], ["a", 1], 5, True, {}])
def test_other_inputs_are_refused(server: LiveServer, value: object) -> None:
    reply = server.http.post("/api/embed", json={"model": "all-minilm", "input": value})
    assert (reply.status_code, reply.json()) == (400, {"error": "invalid input type"})


def test_tokens_are_counted_with_special_ones(server: LiveServer) -> None:
    assert embed(server, input=SKY)["prompt_eval_count"] == 8
    assert embed(server, input=[SKY, SKY])["prompt_eval_count"] == 16


def test_long_text_is_cut_at_256_tokens_and_said(server: LiveServer) -> None:
    reply = server.http.post("/api/embed", json={"model": "all-minilm", "input": ["a", LONG]})
    assert reply.headers["X-Truncated-Inputs"] == "1"
    assert reply.json()["prompt_eval_count"] == 3 + 256
    head = embed(server, input="word " * 254)["embeddings"][0]
    assert reply.json()["embeddings"][1] == head


def test_truncate_false_refuses_long_text_and_keeps_short_text(server: LiveServer) -> None:
    reply = server.http.post(
        "/api/embed", json={"model": "all-minilm", "input": LONG, "truncate": False}
    )
    assert reply.status_code == 400
    assert reply.json() == {"error": "the input length exceeds the context length"}
    short = embed(server, input=SKY, truncate=False)
    assert short["embeddings"] == embed(server, input=SKY)["embeddings"]


def test_num_ctx_shortens_the_text(server: LiveServer) -> None:
    # Ollama raises a limit below 4 to 4, where two places are left beside the special tokens.
    short = embed(server, input=SKY, options={"num_ctx": 3, "temperature": 0.5})
    assert short["embeddings"] == embed(server, input="why is")["embeddings"]


@pytest.mark.parametrize(("dimensions", "length"), [(16, 16), (100000, 384), (0, 384), (-1, 384)])
def test_dimensions_cut_and_renormalise(server: LiveServer, dimensions: int, length: int) -> None:
    [vector] = embed(server, input=SKY, dimensions=dimensions)["embeddings"]
    assert len(vector) == length
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "missing request body"),
        (b"{", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"model": 5, "input": "a"}', 400, "field `model` must be a string"),
        (b'{"input": "a"}', 404, "model '' not found"),
        (b'{"model": "bad name!", "input": "a"}', 400, "invalid model name"),
        (b'{"model": "nope", "input": "a"}', 404, 'model "nope" not found, try pulling it first'),
        (b'{"model": "nope", "input": [1]}', 400, "invalid input type"),
        (b'{"model": "all-minilm", "input": "a", "truncate": "no"}', 400, "`truncate`"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    server: LiveServer, body: bytes, status: int, error: str
) -> None:
    reply = server.http.post("/api/embed", content=body)
    assert reply.status_code == status
    assert error in reply.json()["error"]
    assert list(reply.json()) == ["error"]


def test_field_names_in_any_case_and_unknown_fields(server: LiveServer) -> None:
    reply = server.http.post(
        "/api/embed", json={"Model": "ALL-MINILM:latest", "INPUT": SKY, "surprise": {"a": 1}}
    )
    assert reply.json()["embeddings"] == embed(server, input=SKY)["embeddings"]
    assert reply.json()["model"] == "ALL-MINILM:latest"


def test_embeddings_without_model_or_prompt(server: LiveServer) -> None:
    missing = server.http.post("/api/embeddings", json={"prompt": "a"})
    assert (missing.status_code, missing.json()) == (400, {"error": "model is required"})
    empty = server.http.post("/api/embeddings", json={"model": "all-minilm", "prompt": ""})
    assert (empty.status_code, empty.json()) == (200, {"embedding": []})
    alias = server.http.post("/api/embeddings", json={"model": "all-minilm", "input": SKY})
    assert alias.json()["embedding"] == embed(server, input=SKY)["embeddings"][0]


def test_tags_and_show_describe_the_model(server: LiveServer) -> None:
    listed = server.http.get("/api/tags").json()["models"]
    [tag] = [one for one in listed if not one["name"].startswith("rag/")]
    assert tag["name"] == tag["model"] == "all-minilm:latest"
    assert len(tag["digest"]) == 64
    assert tag["details"]["family"] == "bert"
    assert tag["details"]["parameter_size"].endswith("M")
    assert tag["capabilities"] == ["embedding"]
    shown = server.http.post("/api/show", json={"name": "all-minilm"}).json()
    assert shown["model_info"]["bert.embedding_length"] == 384
    assert shown["model_info"]["bert.context_length"] == 256
    assert shown["embedserve"]["fidelity"]["cosine_mean"] >= 0.995


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "model is required"),
        ({"model": "nope"}, 404, "model 'nope:latest' not found"),
        ({"model": "no way"}, 400, "invalid model name"),
    ],
)
def test_show_refuses(server: LiveServer, body: dict[str, str], status: int, error: str) -> None:
    reply = server.http.post("/api/show", json=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})


def test_delete_of_an_unknown_model(server: LiveServer) -> None:
    reply = server.http.request("DELETE", "/api/delete", json={"model": "nope"})
    assert (reply.status_code, reply.json()) == (404, {"error": "model 'nope' not found"})


def test_pull_of_an_installed_model_streams_to_success(server: LiveServer) -> None:
    lines = server.http.post("/api/pull", json={"name": "all-minilm"}).text.splitlines()
    assert lines[0] == '{"status":"pulling manifest"}'
    assert lines[-1] == '{"status":"success"}'
    whole = server.http.post("/api/pull", json={"model": "all-minilm", "stream": False})
    assert whole.json() == {"status": "success"}


def test_pull_of_an_unknown_model_says_so_in_the_stream(server: LiveServer) -> None:
    lines = server.http.post("/api/pull", json={"model": "no-such-model"}).text.splitlines()
    assert "error" in lines[-1]
    assert "no-such-model" in lines[-1]


def test_pull_that_fails_on_the_disk_ends_with_an_error_line(tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / ".locks").write_text("no folder")
    with LiveServer(tmp_path / "home") as live:
        lines = live.http.post("/api/pull", json={"model": "all-minilm"}).text.splitlines()
        assert "could not be installed" in json.loads(lines[-1])["error"]
        whole = live.http.post("/api/pull", json={"model": "all-minilm", "stream": False})
        assert whole.status_code == 500
        assert "could not be installed" in whole.json()["error"]


def test_pulls_whose_clients_left_hold_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    # Without the model in its home the server exports it, which takes many seconds.
    with LiveServer(tmp_path / "home") as live:
        for _ in range(12):
            with live.http.stream("POST", "/api/pull", json={"model": "all-minilm"}) as reply:
                steps = (json.loads(line)["status"] for line in reply.iter_lines())
                assert "exporting" in steps
        started = time.monotonic()
        for _ in range(3):
            # Answered by a thread of the pool that pulls once filled.
            shown = live.http.post("/api/show", json={"model": "nope"}, timeout=5)
            assert shown.status_code == 404
        refused = live.http.request(
            "DELETE", "/api/delete", json={"model": "all-minilm"}, timeout=5
        )
        assert refused.status_code == 409
        assert live.stop() == 0
        assert time.monotonic() - started < 8
        assert "Traceback" not in live.log()


def test_removal_disturbs_no_request_and_takes_no_alias(model_home: Path, tmp_path: Path) -> None:
    shutil.copytree(model_home / "models", tmp_path / "home" / "models")
    body = {"model": "all-minilm", "input": [f"text number {n} " * 20 for n in range(TEXTS)]}
    with LiveServer(tmp_path / "home") as live, ThreadPoolExecutor() as pool:
        alias = {"model": "hf.co/sentence-transformers/all-MiniLM-L6-v2"}
        assert live.http.post("/api/show", json=alias).status_code == 200
        assert live.http.request("DELETE", "/api/delete", json=alias).status_code == 404
        embedding = pool.submit(live.http.post, "/api/embed", json=body)
        time.sleep(0.1)  # it is tokenized or embedded in part, most of it waits
        assert not embedding.done()
        gone = live.http.request("DELETE", "/api/delete", json={"model": "all-minilm"})
        assert gone.status_code == 200
        assert not embedding.done()
        assert live.http.post("/api/embed", json={**body, "input": "a"}).status_code == 404
        reply = embedding.result(60)
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["embeddings"]) == TEXTS


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "all-minilm", "input": "\xff\xfe"}',
        b'{"model": "all-minilm", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "all-minilm", "input": "a", "options": {"num_ctx": 1e400}}',
        b'{"model": "all-minilm", "input": "a", "dimensions": 1e400}',
        b'{"model": "all-minilm", "input": "a", "dimensions": 100000000000000000000000}',
        b'{"model": "all\\u0000minilm", "input": "a"}',
    ],
    ids=["not-utf-8", "nesting", "num_ctx", "dimensions", "too-big", "nul-name"],
)
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_hostile_bodies_are_the_callers_fault(server: LiveServer, path: str, body: bytes) -> None:
    reply = server.http.post(path, content=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]


def test_odd_texts_are_embedded(server: LiveServer) -> None:
    odd = [
        "\x00",
        "a\x00b",
        "\x1b[31m",
        "\ufeff",
        "\U0010ffff",
        "\u202e" * 50,
        "e" + "\u0301" * 5000,
    ]
    vectors = np.array(embed(server, input=odd, options={"num_ctx": 1e300})["embeddings"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_unknown_routes_and_methods_answer_as_ollama_does(server: LiveServer) -> None:
    unknown = server.http.get("/api/nothing")
    assert (unknown.status_code, unknown.text) == (404, "404 page not found")
    wrong = server.http.get("/api/embed")
    assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")


def test_the_same_text_gives_the_same_bytes_alone_and_among_64(server: LiveServer) -> None:
    texts = [f"{'mixed text of many lengths ' * (i % 23)}number {i}" for i in range(64)]
    together = embed(server, input=texts)["embeddings"]
    for position in range(0, 64, 7):
        alone = embed(server, input=texts[position])["embeddings"][0]
        assert np.array(alone, "<f4").tobytes() == np.array(together[position], "<f4").tobytes()
