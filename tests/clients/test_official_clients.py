"""The official client libraries against a live server, as their users call them."""

import shutil
from pathlib import Path

import httpx
import numpy as np
import ollama
import openai
import pytest

from tests.live import LiveServer

TEXTS = ["why is the sky blue?", "a list of two"]


def test_ollama_client_embeds_lists_and_shows(server: LiveServer) -> None:
    with ollama.Client(host=str(server.http.base_url)) as client:
        check_ollama(client)


def check_ollama(client: ollama.Client) -> None:
    reply = client.embed(model="all-minilm", input=TEXTS)
    assert len(reply.embeddings) == 2
    assert reply.prompt_eval_count == 14
    old = client.embeddings(model="all-minilm", prompt=TEXTS[0])
    assert list(old.embedding) == list(reply.embeddings[0])
    [listed] = client.list().models
    assert listed.model == "all-minilm:latest"
    assert client.show("all-minilm").capabilities == ["embedding"]
    assert [step.status for step in client.pull("all-minilm", stream=True)][-1] == "success"


def test_clients_take_answers_that_carry_warnings(server: LiveServer) -> None:
    url = str(server.http.base_url)
    body = {"model": "all-minilm", "input": "a", "dimensions": 100}
    for path in ("/api/embed", "/v1/embeddings"):
        assert "not trained for 100" in server.http.post(path, json=body).json()["warnings"][0]
        whole = server.http.post(path, json={**body, "dimensions": 384}).json()
        assert "warnings" not in whole
    with ollama.Client(host=url) as one, openai.OpenAI(base_url=f"{url}/v1", api_key="no") as two:
        theirs = one.embed(model="all-minilm", input="a", dimensions=100).embeddings[0]
        others = two.embeddings.create(model="all-minilm", input="a", dimensions=100)
    assert len(theirs) == len(others.data[0].embedding) == 100


def test_ollama_client_copies_and_removes(home: Path) -> None:
    writable = home.with_name("writable")
    shutil.copytree(home, writable)
    with LiveServer(writable) as live, ollama.Client(host=str(live.http.base_url)) as client:
        assert client.copy("all-minilm", "mine").status == "success"
        assert {model.model for model in client.list().models} >= {"mine:latest"}
        assert client.delete("mine").status == "success"
        with pytest.raises(ollama.ResponseError, match="not found"):
            client.copy("nope", "mine")


def test_ollama_client_gets_the_error_text(server: LiveServer) -> None:
    with (
        ollama.Client(host=str(server.http.base_url)) as client,
        pytest.raises(ollama.ResponseError, match="try pulling it first") as caught,
    ):
        client.embed(model="nope", input="a")
    assert caught.value.status_code == 404


def test_openai_client_embeds_and_lists(server: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{server.http.base_url}/v1", api_key="none") as client:
        reply = client.embeddings.create(model="all-minilm", input=TEXTS)
        plain = server.http.post("/api/embed", json={"model": "all-minilm", "input": TEXTS}).json()
        ours = np.array([item.embedding for item in reply.data], dtype="<f4")
        assert ours.tobytes() == np.array(plain["embeddings"], dtype="<f4").tobytes()
        assert [model.id for model in client.models.list()] == ["all-minilm:latest"]
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="nope", input="a")


def test_a_form_content_type_is_no_obstacle(server: LiveServer) -> None:
    reply = httpx.post(
        f"{server.http.base_url}/v1/embeddings",
        content=b'{"model": "all-minilm", "input": "a"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        trust_env=False,
    )
    assert reply.status_code == 200
