"""What every check needs: plain calls to compare with, texts, and a list of results.

Standard library only: the environments that it runs in have nothing else in common.
"""

import json
import os
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

URL = os.environ["CLIENTS_URL"]
MODEL = "all-minilm"
RERANKER = os.environ.get("CLIENTS_RERANKER", "")

UNICODE = [
    "Grüße aus Zürich",
    "東京は夜の七時",
    "مرحبا بالعالم",
    "🙂👩\u200d👩\u200d👧",
    "naïve café",
    " ",
    "x",
]
BATCH = UNICODE + [f"Text number {number} of a larger batch." for number in range(57)]
LONG = "The quick brown fox jumps over the lazy dog. " * 200
"""2,000 tokens, where the model reads 256."""

Vectors = Sequence[Sequence[float]]
Embed = Callable[[list[str]], Vectors]

results: list[dict[str, Any]] = []


class Unmet(Exception):
    """A client gave something else than it should."""


def plain(path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401  any JSON value
    """Call the server without a client and return the JSON."""
    request = urllib.request.Request(
        URL + path,
        json.dumps(body).encode() if body is not None else None,
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as reply:
        return json.load(reply)


def check(client: str, package: str, what: str, run: Callable[[], object]) -> None:
    """Run one check of a client and note how it went."""
    try:
        run()
        detail = ""
    except Exception as error:  # whatever a client raises is its result
        detail = f"{type(error).__name__}: {error}"[:300]
    row = {"client": client, "version": version(package), "what": what, "problem": detail}
    results.append(row)
    print(f"{client}: {what}: {detail or 'ok'}", file=sys.stderr, flush=True)


def want(is_met: bool, words: str) -> None:
    """Raise Unmet with these words unless it is met."""
    if not is_met:
        raise Unmet(words)


def same(vectors: Vectors, texts: list[str], **more: Any) -> None:  # noqa: ANN401  JSON values
    """Raise Unmet unless the vectors are those of a plain call, to the last bit of float32."""
    wanted = plain("/api/embed", {"model": MODEL, "input": texts, **more})["embeddings"]
    want(len(vectors) == len(texts), f"{len(vectors)} vectors for {len(texts)} texts")
    for ours, theirs in zip(vectors, wanted, strict=True):
        want(_bits(ours) == _bits(theirs), "a vector differs from that of a plain call")


def _bits(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def fails(run: Callable[[], object], *words: str) -> None:
    """Raise Unmet unless it raises an error that has these words."""
    try:
        run()
    except Exception as error:
        missing = [word for word in words if word.lower() not in str(error).lower()]
        want(not missing, f"its error does not say {missing}: {error}"[:300])
    else:
        raise Unmet("it raised no error")


def embeds(client: str, package: str, embed: Embed, unknown: Embed, *, cuts: bool = True) -> None:
    """Check what all embedding clients do; `unknown` asks for a model that is not there."""
    check(client, package, "one text", lambda: same(embed(["hello"]), ["hello"]))
    check(client, package, "64 texts, many scripts", lambda: same(embed(BATCH), BATCH))
    if cuts:
        check(client, package, "a long text is cut", lambda: same(embed([LONG]), [LONG]))
    else:
        check(
            client,
            package,
            "a long text is refused",
            lambda: fails(lambda: embed([LONG]), "context length"),
        )
    check(client, package, "unknown model", lambda: fails(lambda: unknown(["a"]), "not found"))


def finish() -> None:
    """Print every result for the report."""
    print(json.dumps(results))
