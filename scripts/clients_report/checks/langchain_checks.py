"""ollama, openai, LangChain and LlamaIndex in Python."""

from typing import Any

import httpx
import ollama
import openai
from harness import (
    BATCH,
    LONG,
    MODEL,
    URL,
    check,
    embeds,
    fails,
    finish,
    same,
    want,
)
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.ollama import OllamaEmbedding

UNKNOWN = "no-such-model"


def check_ollama() -> None:
    """Every call of the Ollama client that has to do with embeddings and models."""
    client = ollama.Client(host=URL)
    name = "ollama (Python)"

    def of(model: str, **more: Any) -> Any:  # noqa: ANN401  what the client returns
        return lambda texts: client.embed(model=model, input=texts, **more).embeddings

    def on(what: str, run: Any) -> None:  # noqa: ANN401  any callable
        check(name, "ollama", what, run)

    embeds(name, "ollama", of(MODEL), of(UNKNOWN))
    on("truncate=False", lambda: fails(lambda: of(MODEL, truncate=False)([LONG]), "context length"))
    on("dimensions", lambda: same(of(MODEL, dimensions=128)(BATCH[:3]), BATCH[:3], dimensions=128))
    on("keep_alive and options", lambda: of(MODEL, keep_alive="5m", options={"num_ctx": 64})(["a"]))
    on("embeddings", lambda: same([client.embeddings(MODEL, prompt="a").embedding], ["a"]))
    on("no input", lambda: want(not client.embed(MODEL, input="").embeddings, "a vector"))

    def listed() -> list[str | None]:
        return [model.model for model in client.list().models]

    on("list", lambda: want(f"{MODEL}:latest" in listed(), "another list"))
    on("show", lambda: want(bool(client.show(MODEL).modelinfo), "no model_info"))
    on("show of an unknown model", lambda: fails(lambda: client.show(UNKNOWN), "not found"))
    on("ps", lambda: want(client.ps().models[0].expires_at is not None, "no time"))
    on("pull with progress", lambda: _pulls(client))
    on("pull of an unknown model", lambda: fails(lambda: list(client.pull(UNKNOWN, stream=True))))
    on("copy", lambda: want(client.copy(MODEL, "copied").status == "success", "not copied"))
    on("create from", lambda: client.create(model="made", from_=MODEL))
    on("delete", lambda: want(client.delete("copied").status == "success", "not deleted"))
    on("delete of what was made", lambda: client.delete("made"))
    on("unload", lambda: _unloads(client))


def _pulls(client: ollama.Client) -> None:
    steps = [step.status for step in client.pull(MODEL, stream=True)]
    want(steps[-1] == "success", f"the last step is {steps[-1]}")


def _unloads(client: ollama.Client) -> None:
    reply = client.generate(model=MODEL, keep_alive=0)
    want(reply.done_reason == "unload", f"done_reason is {reply.done_reason}")


def check_openai() -> None:
    """Embeddings in both encodings, listing, and OpenAI's errors."""
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none")
    name = "openai (Python)"

    def of(model: str, **more: Any) -> Any:  # noqa: ANN401  what the client returns
        return lambda texts: [
            row.embedding for row in client.embeddings.create(model=model, input=texts, **more).data
        ]

    def on(what: str, run: Any) -> None:  # noqa: ANN401  any callable
        check(name, "openai", what, run)

    embeds(name, "openai", of(MODEL), of(UNKNOWN))
    on("numbers as text", lambda: same(of(MODEL, encoding_format="float")(BATCH[:3]), BATCH[:3]))
    on("dimensions", lambda: same(of(MODEL, dimensions=128)(["a"]), ["a"], dimensions=128))
    on("models.list", lambda: want(f"{MODEL}:latest" in {m.id for m in client.models.list()}, "no"))
    on("models.retrieve", lambda: want(client.models.retrieve(MODEL).id == MODEL, "another id"))
    on("its own error class", lambda: _raises_not_found(client))


def _raises_not_found(client: openai.OpenAI) -> None:
    try:
        client.embeddings.create(model=UNKNOWN, input="a")
    except openai.NotFoundError:
        return
    want(False, "no NotFoundError")


def check_langchain() -> None:
    """LangChain's two embedders, as documents and as a query."""

    def of(model: str) -> Any:  # noqa: ANN401  what the client returns
        return OllamaEmbeddings(model=model, base_url=URL).embed_documents

    name = "langchain-ollama"
    embeds(name, name, of(MODEL), of(UNKNOWN))
    one = OllamaEmbeddings(model=MODEL, base_url=URL, validate_model_on_init=True)
    check(name, name, "validated query", lambda: same([one.embed_query("a")], ["a"]))

    def openais(model: str) -> Any:  # noqa: ANN401  what the client returns
        return OpenAIEmbeddings(
            model=model, base_url=f"{URL}/v1", api_key="none", check_embedding_ctx_length=False
        ).embed_documents

    name = "langchain-openai"
    embeds(name, name, openais(MODEL), openais(UNKNOWN))
    check(name, name, "token ids are refused, the setting is named", _token_ids)


def _token_ids() -> None:
    """Send what LangChain sends by default: making it needs a vocabulary from the web."""
    body = {"model": MODEL, "input": [[15339, 1917]], "encoding_format": "base64"}
    reply = httpx.post(f"{URL}/v1/embeddings", json=body, trust_env=False)
    want(reply.status_code == 400, f"status {reply.status_code}")
    message = reply.json()["error"]["message"]
    want("check_embedding_ctx_length" in message, f"the setting is not named: {message}")


def check_llama_index() -> None:
    """LlamaIndex's embedder, in batches of its own."""

    def of(model: str) -> Any:  # noqa: ANN401  what the client returns
        return OllamaEmbedding(model_name=model, base_url=URL).get_text_embedding_batch

    name = "llama-index-embeddings-ollama"
    embeds(name, name, of(MODEL), of(UNKNOWN))
    one = OllamaEmbedding(model_name=MODEL, base_url=URL)
    check(name, name, "query", lambda: same([one.get_query_embedding("a")], ["a"]))


check_ollama()
check_openai()
check_langchain()
check_llama_index()
finish()
