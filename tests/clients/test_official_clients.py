"""The official client libraries against a live server, as their users call them."""

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
