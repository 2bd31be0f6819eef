"""Right requests: they bring the server to its working size, and show that it works."""

import json
import urllib.request
from typing import Any

from scripts.fuzz_report.routes import MODEL

PROBE = "Is the answer still the same?"


def call(port: int, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401  JSON
    """Call the server as it is meant to be called and return the JSON."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=600) as reply:  # on a busy machine
        return json.load(reply)


def probe(port: int) -> list[float]:
    """Return a vector that must be the same before and after."""
    vectors: list[list[float]] = call(port, "/api/embed", {"model": MODEL, "input": [PROBE]})[
        "embeddings"
    ]
    return vectors[0]


def warm_up(port: int) -> None:
    """Embed texts of every length, alone and together: engines keep memory for each shape."""
    for words in (*range(1, 260, 3), 5000):
        for texts in (1, 4):
            call(port, "/api/embed", {"model": MODEL, "input": ["word " * words] * texts})
    # As ingestion does, which is among what is attacked: many texts at once run in larger shapes.
    for words in (4, 12, 28, 60, 124, 250):
        texts_at_once = [f"{'word ' * words}{number}" for number in range(256)]
        call(port, "/api/embed", {"model": MODEL, "input": texts_at_once})


def let_go(port: int) -> None:
    """Unload the models that requests made and loaded: each holds memory until it is unused."""
    for loaded in call(port, "/api/ps")["models"]:
        if not loaded["name"].startswith(MODEL):
            call(port, "/api/generate", {"model": loaded["name"], "keep_alive": 0})
