"""An index as a chat model where no upstream is set: the passages are the answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import LiveServer

WELL = "The well of the monastery is closed in winter because its chain freezes."
QUESTION = "Why is the well closed in winter?"
MODEL = "rag/alone"


@pytest.fixture(scope="module")
def alone(server: LiveServer) -> Iterator[LiveServer]:
    server.http.put("/indexes/alone", json={}).raise_for_status()
    documents = [{"name": "well.txt", "text": WELL, "title": "The well"}]
    sent = server.http.post("/indexes/alone/documents?wait=true", json={"documents": documents})
    sent.raise_for_status()
    yield server
    server.http.delete("/indexes/alone").raise_for_status()


def chat(**others: object) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], **others}


def test_the_whole_answer_is_the_passages_with_their_sources(alone: LiveServer) -> None:
    reply = alone.http.post("/v1/chat/completions", json=chat()).json()
    message = reply["choices"][0]["message"]
    link = reply["sources"][0]["source"]["url"]
    assert link.startswith(f"{str(alone.http.base_url).rstrip('/')}/d/")
    assert message["content"].endswith(f"\n\n**[1]** [The well]({link})\n\n> {WELL}")
    assert message["annotations"][0]["url_citation"]["url"] == link
    assert alone.http.get(link).status_code == 200
    native = alone.http.post("/api/chat", json=chat(stream=False)).json()
    assert native["message"] == {"role": "assistant", "content": message["content"]}
    assert native["done"] is True


def test_streams_end_as_their_dialects_do(alone: LiveServer) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    for base in ("/v1", "/openwebui/v1"):
        text = alone.http.post(f"{base}/chat/completions", json=body).text
        assert text.endswith("data: [DONE]\n\n")
        told = [json.loads(one[6:]) for one in text.split("\n\n") if one[6:] not in ("", "[DONE]")]
        assert told[-1]["usage"]["total_tokens"] == 0
        assert told[-2]["choices"][0]["finish_reason"] == "stop"
        kinds = [one["event"]["type"] for one in told if "event" in one]
        assert kinds == (["status", "source"] if base == "/openwebui/v1" else [])
        assert ("annotations" in told[-2]["choices"][0]["delta"]) == (base == "/v1")
    first, last = alone.http.post("/api/chat", json=chat()).text.splitlines()
    assert WELL in json.loads(first)["message"]["content"]
    assert json.loads(last)["done"] is True


def test_it_says_that_there_is_no_evidence(alone: LiveServer) -> None:
    body = chat(rag={"query": "Zanzibar 1731 cheese bishop"})
    reply = alone.http.post("/v1/chat/completions", json=body).json()
    told = 'Nothing in the documents of "alone" answers this question.'
    assert reply["choices"][0]["message"]["content"] == told
    assert reply["sources"] == []


def test_what_needs_a_language_model_is_refused(alone: LiveServer) -> None:
    named = alone.http.post("/v1/chat/completions", json={**chat(), "model": f"{MODEL}@gpt"})
    assert named.status_code == 404
    assert "EMBEDSERVE_CHAT_UPSTREAMS" in named.json()["error"]["message"]
    assert named.json()["error"]["code"] == "model_not_found"
    headers = {"X-OpenWebUI-Task": "title_generation"}
    task = alone.http.post("/openwebui/v1/chat/completions", json=chat(), headers=headers)
    assert task.status_code == 400
    assert "no language model behind it" in task.json()["error"]["message"]


def test_clients_load_and_show_it_as_they_do_others(alone: LiveServer) -> None:
    loaded = alone.http.post("/api/chat", json={"model": f"{MODEL}:latest"}).json()
    assert (loaded["done_reason"], loaded["message"]["content"]) == ("load", "")
    shown = alone.http.post("/api/show", json={"model": MODEL}).json()
    assert shown["capabilities"] == ["completion"]
    assert shown["embedserve"] == {"engine": "rag", "index": "alone", "answers": None}
    embedded = alone.http.post("/api/embed", json={"model": MODEL, "input": "a"})
    assert embedded.status_code == 404
