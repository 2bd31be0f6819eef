"""LiteLLM, Cohere's client for reranking, and the hub's inference client."""

from typing import Any

import cohere
import litellm
from harness import MODEL, RERANKER, URL, check, embeds, fails, finish, same, want
from huggingface_hub import InferenceClient

litellm.suppress_debug_info = True
UNKNOWN = "no-such-model"
CITIES = [
    "Bread is baked in an oven.",
    "Paris is the capital of France.",
    "Bern is in Switzerland.",
]


def check_litellm() -> None:
    """LiteLLM by both of its providers."""

    def of(model: str, base: str, **more: Any) -> Any:  # noqa: ANN401  what the client returns
        return lambda texts: [
            row["embedding"]
            for row in litellm.embedding(model=model, input=texts, api_base=base, **more).data
        ]

    name = "LiteLLM, ollama/"
    embeds(name, "litellm", of(f"ollama/{MODEL}", URL), of(f"ollama/{UNKNOWN}", URL))
    name, base, more = "LiteLLM, openai/", f"{URL}/v1", {"api_key": "none", "max_retries": 0}
    known, unknown = of(f"openai/{MODEL}", base, **more), of(f"openai/{UNKNOWN}", base, **more)
    embeds(name, "litellm", known, unknown)


def check_cohere() -> None:
    """Reranking in both versions of Cohere's interface."""
    if not RERANKER:
        return
    for name, client in (
        ("cohere, v2", cohere.ClientV2(api_key="none", base_url=URL)),
        ("cohere, v1", cohere.Client(api_key="none", base_url=URL)),
    ):

        def rank(model: str, client: Any = client) -> Any:  # noqa: ANN401  what it returns
            return client.rerank(
                model=model, query="capital of France", documents=CITIES, top_n=2
            ).results

        check(name, "cohere", "rerank", lambda rank=rank: _is_ranked(rank(RERANKER)))
        check(
            name,
            "cohere",
            "unknown model",
            lambda rank=rank: fails(lambda: rank(UNKNOWN), "not found"),
        )


def _is_ranked(found: Any) -> None:  # noqa: ANN401  what the client returns
    want(len(found) == 2, f"{len(found)} results instead of 2")
    want({row.index for row in found} <= {0, 1, 2}, "an index beyond the documents")
    scores = [row.relevance_score for row in found]
    want(scores == sorted(scores, reverse=True), "the results are not in order")
    want(all(0 <= score <= 1 for score in scores), "a score is not between 0 and 1")


def check_tei() -> None:
    """The hub's client, which speaks to text-embeddings-inference."""
    client = InferenceClient(base_url=f"{URL}/embed")
    name, package = "huggingface_hub, feature_extraction", "huggingface_hub"

    def embed(texts: list[str]) -> Any:  # noqa: ANN401  what the client returns
        return client.feature_extraction(texts).tolist()

    check(name, package, "one text", lambda: same(embed(["hello"]), ["hello"]))
    check(name, package, "several texts", lambda: same(embed(["a", "ü", "b"]), ["a", "ü", "b"]))


check_litellm()
check_cohere()
check_tei()
finish()
