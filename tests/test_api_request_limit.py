"""A limit of requests at once: refused in Ollama's words, probes never."""

import asyncio
import json

from starlette.types import Receive, Scope, Send

from embedserve.api.request_limit import RequestLimit
from embedserve.services.metrics import Metrics
from tests.asgi import Answer, answer_ok, call

BUSY = "server busy, please try again.  maximum pending requests exceeded"


async def crowd() -> tuple[list[Answer], list[Answer], Metrics]:
    """Send two requests that wait, then some more; return the answers to those, and to the two."""
    gate = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await gate.wait()
        await answer_ok(scope, receive, send)

    metrics = Metrics()
    app = RequestLimit(wait, 2, metrics)
    running = [asyncio.ensure_future(call(app, "/api/embed", method="POST")) for _ in range(2)]
    await asyncio.sleep(0)
    late = [
        await call(app, "/api/embed", method="POST"),
        await call(app, "/v1/embeddings", method="POST"),
        await call(app, "/health"),
    ]
    gate.set()
    done = [await one for one in running]
    done.append(await call(app, "/api/embed", method="POST"))
    return late, done, metrics


def test_requests_beyond_the_limit_are_refused() -> None:
    (native, openai, probe), done, metrics = asyncio.run(crowd())
    assert (native.status, json.loads(native.body)) == (503, {"error": BUSY})
    assert native.headers["retry-after"] == "1"
    assert openai.status == 429
    assert json.loads(openai.body)["error"]["message"] == BUSY
    assert probe.status == 200
    assert [answer.status for answer in done] == [200, 200, 200]
    assert b'embedserve_refusals_total{reason="overloaded"} 2.0' in metrics.page()
