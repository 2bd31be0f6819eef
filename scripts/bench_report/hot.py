"""What a request costs besides its vectors: three applications with vectors that are ready.

`ours` is the server's own application, `default` the same routes as FastAPI's documentation has
them (request model, response model), `floor` reads the request and sends bytes: the web server and
the system alone. Each runs in a process of its own: `python -m scripts.bench_report.hot KIND`.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from http.client import HTTPConnection
from typing import Any, cast

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from embedserve.api.app import AppLimits, create_app
from embedserve.api.replies import Services
from embedserve.bootstrap.address import listen
from embedserve.services.chat import ChatOptions, ChatService
from embedserve.services.embedding import Embeddings, EmbedRequest
from embedserve.services.memory import FreedMemory
from embedserve.services.metrics import Metrics
from embedserve.services.upstreams import Upstreams
from embedserve.types import Vectors
from scripts.bench_report.figures import Route
from scripts.bench_report.load import Load, perform, request
from scripts.bench_report.web import config

KINDS = ("ours", "default", "floor")
DIMENSIONS = 384
MOST_TEXTS = 64
MODEL = "all-minilm"


class ReadyVectors:
    """Answers as the service does, without an engine: random vectors of unit length."""

    def __init__(self) -> None:
        rows = np.random.default_rng(0).standard_normal((MOST_TEXTS, DIMENSIONS), np.float32)
        self.rows: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    async def embed(self, wanted: EmbedRequest) -> Embeddings:
        """Return the first vectors, as many as there are texts."""
        return Embeddings(self.rows[: len(wanted.texts)], 16 * len(wanted.texts), (), 0, 1)


class NoIndexes:
    """What lists of models find, where there is no index to chat with."""

    def names(self) -> list[str]:
        """Return none."""
        return []


def services_with(**present: object) -> Services:
    """Return the server's services with these alone; of the others only chats are ever asked."""
    absent: dict[str, object] = dict.fromkeys(field.name for field in fields(Services))
    none = cast(Any, None)
    absent["chat"] = ChatService(
        cast(Any, NoIndexes()), none, none, Upstreams(()), ChatOptions(cast(Any, None))
    )
    return Services(**cast(Any, {**absent, **present}))


def ours() -> ASGIApp:
    """Return the server's application."""
    services = services_with(embedding=ReadyVectors(), metrics=Metrics(), freed=FreedMemory())
    return create_app(services, AppLimits(1 << 26, (), is_loopback=True))


class EmbedBody(BaseModel):
    """`POST /api/embed`."""

    model: str
    input: str | list[str]
    truncate: bool = True
    dimensions: int | None = None


class EmbedReply(BaseModel):
    """Its answer."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class PromptBody(BaseModel):
    """`POST /api/embeddings`."""

    model: str
    prompt: str


class PromptReply(BaseModel):
    """Its answer."""

    embedding: list[float]


class OpenAiBody(BaseModel):
    """`POST /v1/embeddings`."""

    model: str
    input: str | list[str]
    encoding_format: str = "float"
    dimensions: int | None = None


class OpenAiItem(BaseModel):
    """One vector."""

    object: str = "embedding"
    embedding: list[float] | str
    index: int


class OpenAiReply(BaseModel):
    """All of them."""

    object: str = "list"
    data: list[OpenAiItem]
    model: str
    usage: dict[str, int]


def default() -> FastAPI:
    """Return the same three routes in the framework's default way."""
    app, service = FastAPI(), ReadyVectors()

    def wanted(model: str, texts: str | list[str]) -> EmbedRequest:
        return EmbedRequest(model=model, texts=[texts] if isinstance(texts, str) else texts)

    @app.post("/api/embed", response_model=EmbedReply)
    async def embed(body: EmbedBody) -> dict[str, Any]:
        found = await service.embed(wanted(body.model, body.input))
        return {
            "model": body.model,
            "embeddings": found.vectors.tolist(),
            "total_duration": found.total_ns,
            "load_duration": found.load_ns,
            "prompt_eval_count": found.tokens,
        }

    @app.post("/api/embeddings", response_model=PromptReply)
    async def embeddings(body: PromptBody) -> dict[str, Any]:
        found = await service.embed(wanted(body.model, body.prompt))
        return {"embedding": found.vectors[0].tolist()}

    @app.post("/v1/embeddings", response_model=OpenAiReply)
    async def openai(body: OpenAiBody) -> dict[str, Any]:
        found = await service.embed(wanted(body.model, body.input))
        rows: list[Any] = (
            [base64.b64encode(row.tobytes()).decode() for row in found.vectors]
            if body.encoding_format == "base64"
            else found.vectors.tolist()
        )
        return {
            "data": [{"embedding": row, "index": place} for place, row in enumerate(rows)],
            "model": body.model,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        }

    return app


async def floor(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request and answer with as many bytes as its path says."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    body = bytes(int(scope["path"].strip("/")))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HotServer:
    """One of the applications, running."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self.port = pid, port

    def cpu_us(self, path: str, body: bytes, calls: int) -> float:
        """Return microseconds of CPU, the system's included, that a request takes the server."""
        load = Load(self.port, [request(path, body)], calls=calls)
        perform(load)  # warm
        before = self._cpu_s()
        perform(load)
        return (self._cpu_s() - before) / calls * 1e6

    def reply(self, path: str, body: bytes) -> bytes:
        """Return the answer to a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        content = connection.getresponse().read()
        connection.close()
        return content

    def _cpu_s(self) -> float:
        # Linux's clock of another process's CPU time; /proc has it in hundredths of a second only.
        return time.clock_gettime(~self._pid << 3 | 2)


def body(route: Route, texts: Sequence[str]) -> bytes:
    """Return a request for the vectors of texts; of one text where the route takes no more."""
    fields: dict[str, object] = {"model": MODEL}
    fields |= {"input": list(texts)} if route.most_texts > 1 else {"prompt": texts[0]}
    fields |= {"encoding_format": route.encoding} if route.encoding else {}
    return json.dumps(fields).encode()


def vectors_of(answer: Mapping[str, Any]) -> Vectors:
    """Read the vectors out of any route's answer, (texts, dimensions) float32."""
    if "data" in answer:
        rows = [item["embedding"] for item in answer["data"]]
        if isinstance(rows[0], str):
            return np.stack([np.frombuffer(base64.b64decode(row), np.float32) for row in rows])
    else:
        rows = answer.get("embeddings") or [answer["embedding"]]
    return np.array(rows, dtype=np.float32)


@contextmanager
def hot_server(kind: str) -> Iterator[HotServer]:
    """Run one of the applications in a process of its own."""
    command = [sys.executable, "-m", __name__, kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ})
    try:
        if process.stdout is None or not (line := process.stdout.readline()):
            raise SystemExit(f"The application `{kind}` did not start.")
        yield HotServer(process.pid, int(line))
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout:
            process.stdout.close()


def main(arguments: Sequence[str]) -> None:
    """Serve one of the applications; print its port first."""
    apps: dict[str, Callable[[], ASGIApp]] = {"ours": ours, "default": default}
    app = apps.get(arguments[0], lambda: floor)()
    with listen("127.0.0.1", 0) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config(app)).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1:])
