"""Fields of the embedding routes that are ours, and the routes about tokens."""

import asyncio
import base64
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import numpy as np
import pytest

from embedserve.api.body import parse_object
from embedserve.errors import InputTooLongError, NotFiniteError, TextFailedError, TooLargeError
from embedserve.services.deadline import deadline
from embedserve.services.embedding import Embeddings, EmbeddingService, EmbedRequest
from embedserve.services.per_item import embed_items
from tests.live import LiveServer

NAME = "all-minilm"
# Each word is one token.
WORDS = " ".join(["sky", "blue", "green", "house", "river"] * 60)


def post(server: LiveServer, path: str, status: int = 200, /, **fields: object) -> Any:  # noqa: ANN401
    reply = server.http.post(path, json={"model": NAME, **fields})
    assert reply.status_code == status, reply.text
    return reply.json()


def embed(server: LiveServer, value: object, **fields: object) -> Any:  # noqa: ANN401
    return post(server, "/api/embed", input=value, **fields)["embeddings"]


def ids_of(server: LiveServer, text: str) -> list[int]:
    [ids] = post(server, "/api/tokenize", input=text, add_special_tokens=False)["tokens"]
    return cast(list[int], ids)


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("input_type", "`query`, `document`"),
        ("truncate_side", "`left`, `right`"),
        ("on_error", "`fail`, `item`"),
        ("encoding_format", "['float', 'base64']"),
    ],
)
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_unknown_values_are_refused_with_the_choices(
    server: LiveServer, path: str, field: str, choices: str
) -> None:
    error = post(server, path, 400, input="a", **{field: "other"})["error"]
    if path == "/v1/embeddings":
        assert error["param"] == field
        error = error["message"]
    assert choices in error
    post(server, path, 200, input="a", **{field: None})


def test_base64_gives_the_same_vectors(server: LiveServer) -> None:
    texts = ["one", "two"]
    plain = embed(server, texts, dimensions=64)
    coded = embed(server, texts, dimensions=64, encoding_format="base64")
    for one, other in zip(plain, coded, strict=True):
        assert np.frombuffer(base64.b64decode(other), "<f4").tolist() == np.float32(one).tolist()


# -- truncation -------------------------------------------------------------------------------


def test_left_keeps_the_end_of_a_text_to_the_token(server: LiveServer) -> None:
    body = {"model": NAME, "input": ["a", WORDS], "truncate_side": "left"}
    reply = server.http.post("/api/embed", json=body)
    assert reply.headers["X-Truncated-Inputs"] == "1"
    assert len(ids_of(server, WORDS)) == 300
    tail = " ".join(WORDS.split()[-254:])
    assert reply.json()["embeddings"][1] == embed(server, tail)[0] != embed(server, WORDS)[0]
    assert embed(server, "short", truncate_side="left") == embed(server, "short")


def test_left_and_no_truncation_is_an_error_too(server: LiveServer) -> None:
    reply = post(server, "/api/embed", 400, input=WORDS, truncate_side="left", truncate=False)
    assert reply == {"error": "the input length exceeds the context length"}


# -- failures by text -------------------------------------------------------------------------


def test_text_that_fails_costs_itself_only(server: LiveServer) -> None:
    texts = ["one", 5, WORDS, None, "x" * (2**23 + 1), "two"]
    reply = post(server, "/api/embed", input=texts, on_error="item", truncate=False)
    good = embed(server, ["one", "two"])
    assert reply["embeddings"] == [good[0], None, None, None, None, good[1]]
    assert [error["index"] for error in reply["errors"]] == [1, 2, 3, 4]
    told = [error["error"] for error in reply["errors"]]
    assert told[0] == told[2] == "invalid input type"
    assert told[1] == "the input length exceeds the context length"
    assert "EMBEDSERVE_MAX_TEXT_BYTES" in told[3]
    assert reply["prompt_eval_count"] == 6
    assert "errors" not in post(server, "/api/embed", input=["one"], on_error="item")


def test_failures_by_text_in_openais_shape(server: LiveServer) -> None:
    reply = post(
        server, "/v1/embeddings", input=["one", {}], on_error="item", encoding_format="base64"
    )
    one, other = reply["data"]
    assert isinstance(one["embedding"], str)
    assert "error" not in one
    assert other == {
        "object": "embedding",
        "embedding": None,
        "index": 1,
        "error": "invalid input type",
    }


def test_cut_texts_keep_their_positions_among_failed_ones(server: LiveServer) -> None:
    body = {"model": NAME, "input": [None, "a", WORDS], "on_error": "item"}
    reply = server.http.post("/api/embed", json=body)
    assert (reply.headers["X-Truncated-Inputs"], reply.headers["X-Truncated-Count"]) == ("2", "1")


def test_what_is_wrong_with_the_request_fails_it_all_the_same(server: LiveServer) -> None:
    body = {"model": "nope", "input": ["a", None], "on_error": "item"}
    assert server.http.post("/api/embed", json=body).status_code == 404
    assert post(server, "/api/embed", input=[None, 1], on_error="item")["embeddings"] == [None] * 2


class FailingService:
    """Refuses texts by what they are, all of one kind at once, as the service does."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.deadlines: set[float | None] = set()

    def time_for(self, request: EmbedRequest) -> AbstractAsyncContextManager[float | None]:
        return deadline(request.timeout_s, 0)

    async def embed_until(self, deadline_s: float | None, request: EmbedRequest) -> Embeddings:
        self.deadlines.add(deadline_s)
        self.asked.append(list(request.texts))
        at = {
            word: [i for i, text in enumerate(request.texts) if text == word]
            for word in ("large", "long", "nan")
        }
        if at["large"]:
            raise TooLargeError("large", positions=at["large"])
        if at["long"]:
            raise InputTooLongError("long", positions=at["long"])
        if at["nan"]:
            raise NotFiniteError(at["nan"])
        if "poison" in request.texts:
            raise TextFailedError("broken", [list(request.texts).index("poison")])
        rows = np.ones((len(request.texts), 2), np.float32)
        return Embeddings(rows, len(request.texts), (), 0, 1)


def test_each_kind_of_failure_is_taken_out_at_once() -> None:
    service = FailingService()
    texts = ["nan", "a", "large", "long", "nan", "poison", "b", "large"]
    request = EmbedRequest("one", texts, timeout_s=60)
    found = asyncio.run(embed_items(cast(EmbeddingService, service), request, {}))
    assert found.positions == (1, 6)
    assert list(found.failures) == [0, 2, 3, 4, 5, 7]
    assert found.failures[5] == "Text 5 could not be embedded: broken"
    assert found.failures[4] == "embedding contains NaN or Inf values"
    assert [len(asked) for asked in service.asked] == [8, 6, 5, 3, 2]
    assert len(service.deadlines) == 1, "one for all rounds"


# -- tokens -----------------------------------------------------------------------------------


def test_tokens_come_with_offsets_and_go_back_to_text(server: LiveServer) -> None:
    text = "Why is the sky blue?"
    reply = post(server, "/api/tokenize", input=[text, ""], offsets=True)
    first, empty = reply["tokens"]
    assert (first[0], first[-1], len(first)) == (101, 102, 8)
    assert empty == [101, 102]
    assert reply["count"] == 10
    assert reply["offsets"][0][0] == [0, 0]
    assert [text[start:end] for start, end in reply["offsets"][0][1:3]] == ["Why", "is"]
    assert ids_of(server, text) == first[1:-1]
    back = post(server, "/api/detokenize", tokens=[first, []])
    assert back == {"model": NAME, "texts": ["why is the sky blue?", ""]}
    whole = post(server, "/api/detokenize", tokens=first, skip_special_tokens=False)["texts"]
    assert whole == ["[CLS] why is the sky blue? [SEP]"]


def test_texts_are_tokenized_to_their_end(server: LiveServer) -> None:
    assert post(server, "/api/tokenize", input="word " * 5000)["count"] == 5002
    assert (
        "1000000 characters" in post(server, "/api/tokenize", 413, input="a" * 1_000_001)["error"]
    )


def test_requests_about_tokens_have_limits_and_a_deadline(server: LiveServer) -> None:
    refused = post(server, "/api/tokenize", 413, input=["a" * 500_000] * 3)["error"]
    assert "1500000 characters; at most 1000000" in refused
    refused = post(server, "/api/detokenize", 413, tokens=[[101] * 600_000, ["x"] * 600_000])
    assert "1200000 token ids in one request; at most 1000000" in refused["error"]
    for path, body in (
        ("/api/tokenize", {"input": ["word " * 25_000] * 8}),
        ("/api/detokenize", {"tokens": [[2000] * 100_000] * 10}),
    ):
        late = server.http.post(
            path, json={"model": NAME, **body}, headers={"X-Request-Timeout-Ms": "1"}
        )
        assert (late.status_code, "within 0.001 s" in late.json()["error"]) == (503, True)


@pytest.mark.parametrize("tokens", [None, "a", [1.5], [True], [[1], 2], {}])
def test_what_is_no_list_of_ids_is_refused(server: LiveServer, tokens: object) -> None:
    assert "list of token ids" in post(server, "/api/detokenize", 400, tokens=tokens)["error"]


@pytest.mark.parametrize("token", [-1, 30522, 2**40])
def test_ids_outside_of_the_vocabulary_are_named(server: LiveServer, token: int) -> None:
    error = post(server, "/api/detokenize", 400, tokens=[101, token])["error"]
    assert error.startswith(f"Token 1 is {token}, which")


# -- text-embeddings-inference ----------------------------------------------------------------


def test_tei_gives_bare_vectors_of_the_default_model(server: LiveServer) -> None:
    expected = embed(server, ["one", "two"])
    reply = server.http.post("/embed", json={"inputs": ["one", "two"], "normalize": True})
    assert reply.json() == expected
    assert server.http.post("/embed", json={"inputs": "one"}).json() == expected[:1]
    body = {"inputs": WORDS, "truncate": True, "truncation_direction": "Left"}
    cut = server.http.post("/embed", json=body)
    assert cut.json() == embed(server, WORDS, truncate_side="left")
    assert cut.headers["X-Truncated-Inputs"] == "0"
    named = {"inputs": "one", "prompt_name": "query", "dimensions": 16}
    assert server.http.post("/embed", json=named).json() == embed(server, "one", dimensions=16)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "Validation"),
        ({"inputs": []}, 422, "Validation"),
        ({"inputs": [[1, 2]]}, 422, "Validation"),
        ({"inputs": "a", "normalize": False}, 422, "Validation"),
        ({"inputs": "a", "prompt_name": "poem"}, 422, "Validation"),
        ({"inputs": WORDS}, 413, "Validation"),
        ({"inputs": ["a"] * 10_001}, 413, "Validation"),
        ({"inputs": "a", "model": "nope"}, 404, "Validation"),
    ],
)
def test_tei_errors_have_their_shape(
    server: LiveServer, body: dict[str, object], status: int, kind: str
) -> None:
    reply = server.http.post("/embed", json=body)
    assert (reply.status_code, reply.json()["error_type"]) == (status, kind)
    assert reply.json()["error"]
    assert reply.headers["content-type"] == "application/json"


def test_tei_info_describes_the_default_model(server: LiveServer) -> None:
    found = server.http.get("/info").json()
    assert found["model_id"] == "all-minilm:latest"
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (found["max_input_length"], found["auto_truncate"]) == (256, False)
    assert found["max_client_batch_size"] == 10_000
    assert found["max_concurrent_requests"] > 1


def test_a_long_body_that_needs_a_second_reading_does_not_hold_up_others() -> None:
    order = []

    async def read() -> None:
        body = b'{"input": "%s\\ud83d"}' % (b"a" * (1 << 20))
        value = await parse_object(body)
        order.append(value["input"][-1])

    async def other() -> None:
        order.append("other")

    async def both() -> None:
        await asyncio.gather(read(), other())

    asyncio.run(both())
    assert order == ["other", "\ufffd"]
