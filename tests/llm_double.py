"""A server with language models on a free port: Ollama's and OpenAI's chat, streamed for real.

The name of the model says how it behaves. Nothing is generated; what it was asked is kept.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.llm_quotes import quote
from tests.loopback_server import doubling

WAIT_S = 20
WORDS = ("Rust frees", " the value", " when its owner", " goes out of scope [1].")
FAULTY = ("error", "cut", "silent", "slow", "endless", "caller", "plain", "late-error")
QUOTERS = ("quoter", "looker")
"""They quote what they were given; the second one calls the first tool that it has before."""
MODELS = ("writer", *FAULTY, *QUOTERS)
USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
CALL = {"name": "look_up", "arguments": '{"word": "borrow"}'}


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def last(self) -> str:
        """Return the text of the last message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[0]["text"]


@dataclass
class LanguageModels:
    """What the server saw, and the gate that `slow` waits at."""

    url: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """The other side closed the connection before its answer was complete."""
    asked: list[Asked] = field(default_factory=list)

    def forget(self) -> None:
        """Close the gate and drop what was seen."""
        self.gate.clear()
        self.left.clear()
        self.asked.clear()

    def only(self) -> Asked:
        """Return the one chat that came."""
        [one] = self.asked
        return one


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: LanguageModels

    def do_GET(self) -> None:
        if self.path == "/api/tags":
            details = {"family": "llama"}
            names = [f"{one}:latest" for one in MODELS]
            models = [{"name": one, "model": one, "details": details} for one in names]
            models.insert(0, {"name": "nomic-embed-text:latest", "details": {"family": "bert"}})
            self._whole(200, {"models": models})
        else:
            data = [{"id": one, "object": "model"} for one in ("text-embedding-3-small", *MODELS)]
            self._whole(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/show":
            info = {"llama.context_length": 8192, "llama.embedding_length": 4096}
            self._whole(200, {"capabilities": ["completion", "tools"], "model_info": info})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.asked.append(Asked(self.path, headers, body))
        self.is_ollama = self.path == "/api/chat"
        model = body["model"].removesuffix(":latest")
        if model == "error":
            self._whole(429, {"error": "slow down" if self.is_ollama else {"message": "slow down"}})
        elif model == "silent":
            self.seen.gate.wait(WAIT_S)
            self.close_connection = True
        else:
            self.words = quote(body["messages"]) if model in QUOTERS else WORDS
            self.call = _call_of(model, body)
            if model in ("slow", "late-error"):
                self.seen.gate.wait(WAIT_S)
            if model == "late-error":
                self._whole(500, {"error": {"message": "out of memory"}})
            elif body.get("stream", self.is_ollama) and model != "plain":
                self._stream(model)
            else:
                self._answer(model)

    def _answer(self, model: str) -> None:
        text = "Nothing is cited." if model == "plain" else "".join(self.words)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.is_ollama:
            self._whole(200, {"model": model, "message": message, "done": True, "eval_count": 4})
            return
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._whole(200, {"id": "1", "choices": [choice], "usage": USAGE, "x_theirs": [1.5, None]})

    def _stream(self, model: str) -> None:
        self.send_response(200)
        kind = "application/x-ndjson" if self.is_ollama else "text/event-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.call:
            self._call(self.call)
        for word in self.words if not self.call else ():
            self._say(word)
            if model == "cut":
                self.close_connection = True
                return
            if model == "endless":
                self._wait_until_left()
                return
        self._end()

    def _say(self, word: str) -> None:
        if self.is_ollama:
            self._line({"model": "m", "message": _message(word), "done": False})
        else:
            self._line({"id": "1", "choices": [{"index": 0, "delta": {"content": word}}]})

    def _call(self, call: dict[str, str]) -> None:
        head, tail = call["arguments"][:8], call["arguments"][8:]
        for part in ({"name": call["name"], "arguments": head}, {"arguments": tail}):
            calls = [{"index": 0, "id": "c1", "type": "function", "function": part}]
            self._line({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]})

    def _end(self) -> None:
        if self.is_ollama:
            self._line({"model": "m", "message": _message(""), "done": True, "eval_count": 4})
        else:
            reason = "tool_calls" if self.call else "stop"
            self._line({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            self._line({"choices": [], "usage": USAGE})
            self._part(b"data: [DONE]\n\n")
        self._part(b"")

    def _wait_until_left(self) -> None:
        self.connection.settimeout(WAIT_S)
        if self.connection.recv(1) == b"":
            self.seen.left.set()
        self.close_connection = True

    def _line(self, value: object) -> None:
        text = json.dumps(value).encode()
        self._part(text + b"\n" if self.is_ollama else b"data: " + text + b"\n\n")

    def _part(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.flush()

    def _whole(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _call_of(model: str, body: dict[str, Any]) -> dict[str, str]:
    """Return the call of a tool that is the answer; empty: words are."""
    if model == "caller":
        return CALL
    has_called = any(one["role"] == "tool" for one in body["messages"])
    if model != "looker" or has_called or not body.get("tools"):
        return {}
    return {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@contextmanager
def language_models() -> Iterator[LanguageModels]:
    """Serve on a free port of this machine."""
    with doubling(LanguageModels(), _Handler) as seen:
        yield seen
