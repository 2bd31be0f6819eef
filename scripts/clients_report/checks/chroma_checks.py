"""Chroma's embedding function for Ollama, alone and inside a collection."""

from typing import Any

import chromadb
from chromadb.utils.embedding_functions import OllamaEmbeddingFunction
from harness import MODEL, URL, check, embeds, finish, same, want

NAME = "chromadb"


def of(model: str) -> Any:  # noqa: ANN401  what the client returns
    """Return a call of the embedding function."""
    function = OllamaEmbeddingFunction(url=URL, model_name=model)
    return lambda texts: [row.tolist() for row in function(texts)]


def in_a_collection() -> None:
    """Add and query documents that Chroma embeds itself."""
    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    function: Any = OllamaEmbeddingFunction(url=URL, model_name=MODEL)
    collection = client.create_collection("texts", embedding_function=function)
    collection.add(ids=["1", "2"], documents=["The cat sleeps.", "Stocks fell on Monday."])
    found = collection.query(query_texts=["a sleeping animal"], n_results=1)
    want(found["ids"] == [["1"]], f"found {found['ids']}")


embeds(NAME, NAME, of(MODEL), of("no-such-model"))
old = OllamaEmbeddingFunction(url=f"{URL}/api/embeddings", model_name=MODEL)
check(NAME, NAME, "the old form of the address", lambda: same([old(["a"])[0].tolist()], ["a"]))
check(NAME, NAME, "a collection that embeds by itself", in_a_collection)
finish()
