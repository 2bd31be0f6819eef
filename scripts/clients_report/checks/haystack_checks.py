"""Haystack's two Ollama embedders."""

from typing import Any

from harness import MODEL, URL, check, embeds, finish, same
from haystack import Document
from haystack_integrations.components.embedders.ollama import (
    OllamaDocumentEmbedder,
    OllamaTextEmbedder,
)

NAME = "ollama-haystack"


def of(model: str) -> Any:  # noqa: ANN401  what the client returns
    """Return a call that embeds documents, in batches of its own."""

    def embed(texts: list[str]) -> list[list[float]]:
        embedder = OllamaDocumentEmbedder(model=model, url=URL, progress_bar=False)
        found = embedder.run(documents=[Document(content=text) for text in texts])["documents"]
        return [document.embedding for document in found]

    return embed


embeds(NAME, NAME, of(MODEL), of("no-such-model"))
text = OllamaTextEmbedder(model=MODEL, url=URL)
check(NAME, NAME, "query", lambda: same([text.run(text="a")["embedding"]], ["a"]))
finish()
