"""Whatever the text, the official libraries give what a plain call gives, to the last bit."""

import asyncio
from collections.abc import Callable

import numpy as np
import ollama
import openai
import pytest

from tests.live import LiveServer

Vectors = list[list[float]]
Embed = Callable[[str, list[str]], Vectors]

SCRIPTS = [
    "Grüße aus Zürich",
    "東京は夜の七時",
    "مرحبا بالعالم",
    "👩\u200d👩\u200d👧",
    "e\u0301",
    " ",
    "",
]
BATCH = [*SCRIPTS, *(f"Text number {number} of a batch." for number in range(57))]
LONG = "The quick brown fox jumps over the lazy dog. " * 100


def by_ollama(url: str, texts: list[str]) -> Vectors:
    with ollama.Client(host=url) as client:
        return [list(row) for row in client.embed(model="all-minilm", input=texts).embeddings]


def by_ollama_async(url: str, texts: list[str]) -> Vectors:
    async def embed() -> Vectors:
        async with ollama.AsyncClient(host=url) as client:
            reply = await client.embed(model="all-minilm", input=texts)
            return [list(row) for row in reply.embeddings]

    return asyncio.run(embed())


def by_openai(url: str, texts: list[str]) -> Vectors:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        reply = client.embeddings.create(model="all-minilm", input=texts)
        return [row.embedding for row in reply.data]


def by_openai_async(url: str, texts: list[str]) -> Vectors:
    async def embed() -> Vectors:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            reply = await client.embeddings.create(
                model="all-minilm", input=texts, encoding_format="float"
            )
            return [row.embedding for row in reply.data]

    return asyncio.run(embed())


@pytest.mark.parametrize("embed", [by_ollama, by_ollama_async, by_openai, by_openai_async])
@pytest.mark.parametrize("texts", [BATCH, [LONG], ["one"]], ids=["batch", "long", "one"])
def test_every_text_has_the_vector_of_a_plain_call(
    server: LiveServer, embed: Embed, texts: list[str]
) -> None:
    body = {"model": "all-minilm", "input": texts}
    plain = server.http.post("/api/embed", json=body).json()["embeddings"]
    ours = embed(str(server.http.base_url).rstrip("/"), texts)
    assert np.array(ours, "<f4").tobytes() == np.array(plain, "<f4").tobytes()


def test_a_long_text_is_refused_on_demand(server: LiveServer) -> None:
    with (
        ollama.Client(host=str(server.http.base_url)) as client,
        pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught,
    ):
        client.embed(model="all-minilm", input=[LONG], truncate=False)
    assert caught.value.status_code == 400
