"""Ollama's chat for a server that speaks OpenAI's API: the request there, the answer back.

Pure functions and one small reader. What OpenAI's API has no word for (`keep_alive`, `num_ctx` and
the other options of an engine) is left out.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from embedserve.api.body import Fields

Json = dict[str, Any]

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_PICTURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


def to_openai(fields: Fields, model: str, messages: Sequence[Json], *, is_streamed: bool) -> Json:
    """Return the request's body for `chat/completions`."""
    body: Json = {"model": model, "messages": _messages(messages), "stream": is_streamed}
    if is_streamed:
        body["stream_options"] = {"include_usage": True}
    options = fields.table("options")
    for name, theirs in _OPTIONS.items():
        if (value := options.raw(name)) is not None:
            body[theirs] = value
    most = options.raw("num_predict")
    if isinstance(most, int) and most > 0:
        body["max_tokens"] = most
    if tools := fields.raw("tools"):
        body["tools"] = tools
    if isinstance(effort := fields.raw("think"), str):
        body["reasoning_effort"] = effort
    if form := fields.raw("format"):
        schema = {"name": "answer", "schema": form}
        body["response_format"] = (
            {"type": "json_object"}
            if isinstance(form, str)
            else {"type": "json_schema", "json_schema": schema}
        )
    return body


def time_now() -> str:
    """Return the time as Ollama writes it."""
    # Six digits: more are too many for some clients.
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class OllamaAnswer:
    """Reads an OpenAI answer, whole or chunk by chunk, as the objects that Ollama sends."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._calls: dict[int, Json] = {}
        self._reason = ""
        self._usage: Json = {}

    def objects(self, chunk: Mapping[str, Any]) -> list[Json]:
        """Return what a chunk, or a whole completion, says before the end."""
        self._usage = chunk.get("usage") or self._usage
        found = []
        for choice in (chunk.get("choices") or [])[:1]:
            said = choice.get("delta") or choice.get("message") or {}
            self._reason = choice.get("finish_reason") or self._reason
            self._gather(said.get("tool_calls") or [])
            message = {"role": "assistant", "content": said.get("content") or ""}
            thought = said.get("reasoning_content") or said.get("reasoning")
            if isinstance(thought, str) and thought:
                message["thinking"] = thought
            if message["content"] or "thinking" in message:
                found.append(self._object(message))
        return found

    def last(self) -> list[Json]:
        """Return what ends the answer: the calls of tools, and the counts."""
        calls = [_call_back(one) for one in self._calls.values()]
        message: Json = {"role": "assistant", "content": ""}
        first = [self._object({**message, "tool_calls": calls})] if calls else []
        ended = {
            "done": True,
            "done_reason": "length" if self._reason == "length" else "stop",
            "prompt_eval_count": self._usage.get("prompt_tokens", 0),
            "eval_count": self._usage.get("completion_tokens", 0),
        }
        return [*first, {**self._object(message), **ended}]

    def _object(self, message: Json) -> Json:
        return {"model": self._model, "created_at": time_now(), "message": message, "done": False}

    def _gather(self, calls: Sequence[Json]) -> None:
        for place, call in enumerate(calls):
            known = self._calls.setdefault(call.get("index", place), {"name": "", "arguments": ""})
            function = call.get("function") or {}
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""


def joined(objects: Sequence[Json]) -> Json:
    """Return the one object that Ollama sends where nothing is streamed."""
    message: Json = {"role": "assistant", "content": ""}
    for one in objects:
        said = one["message"]
        message["content"] += said.get("content", "")
        if "thinking" in said:
            message["thinking"] = message.get("thinking", "") + said["thinking"]
        if "tool_calls" in said:
            message["tool_calls"] = said["tool_calls"]
    return {**objects[-1], "message": message}


def _messages(messages: Sequence[Json]) -> list[Json]:
    """Return the messages with calls and results of tools joined by ids, which Ollama has not."""
    found: list[Json] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        turn: Json = {"role": message.get("role"), "content": _content(message)}
        if calls := message.get("tool_calls"):
            waiting = [f"call_{place}_{number}" for number in range(len(calls))]
            turn["tool_calls"] = [
                _call_there(call, id_) for call, id_ in zip(calls, waiting, strict=True)
            ]
        elif turn["role"] == "tool":
            turn["tool_call_id"] = waiting.pop(0) if waiting else f"call_{place}"
        found.append(turn)
    return found


def _content(message: Json) -> Any:  # noqa: ANN401  JSON
    pictures = message.get("images") or []
    if not pictures:
        return message.get("content") or ""
    text = {"type": "text", "text": message.get("content") or ""}
    return [text, *({"type": "image_url", "image_url": {"url": _address(one)}} for one in pictures)]


def _address(picture: str) -> str:
    """Return a picture in base64 as an address; its first bytes tell what it is."""
    if picture.startswith(("data:", "http://", "https://")):
        return picture
    try:
        head = base64.b64decode(picture[:16])
    except ValueError:
        head = b""
    kind = next((kind for mark, kind in _PICTURES.items() if head.startswith(mark)), "image/png")
    return f"data:{kind};base64,{picture}"


def _call_there(call: Json, id_: str) -> Json:
    function = call.get("function") or {}
    arguments = orjson.dumps(function.get("arguments") or {}).decode()
    called = {"name": function.get("name"), "arguments": arguments}
    return {"id": id_, "type": "function", "function": called}


def _call_back(call: Json) -> Json:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except json.JSONDecodeError:
        # What a model wrote badly is shown as it is: the client's tool decides.
        arguments = {"arguments": call["arguments"]}
    return {"function": {"name": call["name"], "arguments": arguments}}
