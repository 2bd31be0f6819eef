"""Ollama's dialect: chats with an index. Its clients have no place for citations, so that answers
end with a short list of sources in Markdown. Shapes: docs/api.md.
"""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Any

import httpx
import orjson
from fastapi import Request, Response

from embedserve.api.body import Fields
from embedserve.api.chat_fields import body_for, read_turn
from embedserve.api.chat_reply import (
    LINES,
    ChatReply,
    cut,
    error_text,
    object_of,
    opened,
    pass_on,
    whole,
)
from embedserve.api.chat_translation import OllamaAnswer, joined, time_now, to_openai
from embedserve.api.exchange import Answer
from embedserve.api.replies import json_reply, services
from embedserve.errors import UpstreamError
from embedserve.services.chat import ChatModel, ChatService, ChatTurn, Grounded
from embedserve.services.chat_answer import source_list
from embedserve.services.chat_names import parse_chat_name

Json = dict[str, Any]

_LINE_ENDS = (b"\n",)
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_DETAILS = {
    "parent_model": "",
    "format": "rag",
    "family": "rag",
    "families": ["rag"],
    "parameter_size": "",
    "quantization_level": "",
}


async def chat(request: Request, value: Mapping[str, Any]) -> Response:
    """Answer `/api/chat` for a model `rag/INDEX`."""
    fields = Fields(value)
    is_streamed = fields.flag("stream", default=True)
    available = services(request).chat
    name = fields.text("model")
    if not fields.raw("messages"):
        # Loading: whoever has the model loads it when it is asked.
        found = await available.find(parse_chat_name(name))
        return json_reply(_ended(str(found.name), "load"))
    turn = read_turn(request, value, is_streamed=is_streamed)
    return ChatReply(partial(_answer, available, turn, value))


def tag_of(one: ChatModel) -> Json:
    """Return what `/api/tags` says of a model; it embeds nothing, so it names no such length."""
    name = one.name.tagged
    return {
        "name": name,
        "model": name,
        "modified_at": one.created_at,
        "size": 0,
        "digest": sha256(name.encode()).hexdigest(),
        "details": _DETAILS,
        "capabilities": ["completion"],
        "embedserve": {"engine": "rag", "recipe": "-"},
    }


async def shown(request: Request, name: str) -> Response:
    """Answer `/api/show` for a model `rag/INDEX`: the index, and what its language model can do."""
    available, said = services(request).chat, request.headers.get("authorization", "")
    found = await available.find(parse_chat_name(name))
    target = await available.target(found.name, said)
    theirs: Json = {}
    if target:
        theirs = await target.upstream.describe(target.model, said)
    info = theirs.get("model_info")
    own = {"general.architecture": "rag", "general.basename": str(found.name)}
    lengths = {k: v for k, v in (info or {}).items() if k.endswith(".context_length")}
    facts = {"engine": "rag", "index": found.name.index, "answers": target and target.listed}
    return json_reply(
        {
            "license": "",
            "parameters": "",
            "details": _DETAILS,
            "model_info": {**own, **lengths},
            "capabilities": theirs.get("capabilities") or ["completion"],
            "modified_at": found.created_at,
            "embedserve": facts,
        }
    )


async def _answer(
    chat: ChatService, turn: ChatTurn, value: Mapping[str, Any], answer: Answer
) -> None:
    grounded = await chat.ground(turn)
    told = _Told(answer, grounded, str(turn.name), Fields(value))
    if grounded.target is None or grounded.text is not None:
        await told.say_ours()
        return
    upstream, model = grounded.target.upstream, grounded.target.model
    if upstream.dialect == "ollama":
        body = body_for(value, model, grounded.messages)
    else:
        fields, messages = Fields(value), list(grounded.messages)
        body = to_openai(fields, model, messages, is_streamed=told.is_streamed)
    request = upstream.chat_request(upstream.dialect, body, turn.authorization)
    async with opened(upstream.link.exchange(request)) as response:
        if upstream.dialect == "openai":
            await told.translate(response)
        elif response.status_code != 200 or not grounded.status:
            await pass_on(response, answer)
        elif told.is_streamed:
            await told.relay(_native(response))
        else:
            await told.give(object_of(await response.aread()))


class _Told:
    """One answer, with its sources."""

    def __init__(self, answer: Answer, grounded: Grounded, name: str, fields: Fields) -> None:
        self.is_streamed = fields.flag("stream", default=True)
        self._answer = answer
        self._grounded = grounded
        self._name = name
        # A list after what must be JSON would break it.
        self._has_form = bool(fields.raw("format"))
        self._said = ""

    async def open(self) -> None:
        """Begin the stream, once."""
        if not self._answer.has_started:
            await self._answer.begin(200, LINES)

    async def relay(self, lines: AsyncIterator[bytes]) -> None:
        """Hand a stream of Ollama's objects on, with the sources before its last one."""
        await self.open()
        async for line in lines:
            one = object_of(line)
            if one is not None:
                self._said += _content(one)
                if one.get("done") and (sources := self._sources()):
                    model = str(one.get("model", self._name))
                    await self._answer.add(_line(_part(model, sources)))
            await self._answer.add(line)
        await self._answer.end()

    async def give(self, reply: Json | None) -> None:
        """Hand a whole answer on, with the sources at its end."""
        if reply is None:
            raise UpstreamError("The upstream's answer is no JSON. Send the request again.")
        self._said = _content(reply)
        if sources := self._sources():
            reply["message"]["content"] += sources
        await whole(self._answer, reply)

    async def translate(self, response: httpx.Response) -> None:
        """Hand on what a server of the other dialect answers."""
        if response.status_code != 200:
            words = error_text(response.status_code, await response.aread())
            await self._answer.end_with(response.status_code, words)
            return
        reader = OllamaAnswer(self._name)
        if "event-stream" in response.headers.get("content-type", ""):
            await self.relay(_translated(response, reader))
            return
        reply = object_of(await response.aread())
        if reply is None:
            raise UpstreamError("The upstream's answer is no JSON. Send the request again.")
        objects = [*reader.objects(reply), *reader.last()]
        if not self.is_streamed:
            await self.give(joined(objects))
            return
        await self.relay(_lines(objects))

    async def say_ours(self) -> None:
        """Answer without a model's words; the passages name their sources themselves."""
        text = self._grounded.text or ""
        ended = _ended(self._name, "stop")
        if not self.is_streamed:
            ended["message"]["content"] = text
            await whole(self._answer, ended)
            return
        await self.open()
        await self._answer.add(_line(_part(self._name, text)))
        await self._answer.end(_line(ended))

    def _sources(self) -> str:
        if not self._said.strip() or self._has_form:
            return ""
        heading = self._grounded.prompt.sources
        return source_list(heading, self._said, self._grounded.documents)


async def _native(response: httpx.Response) -> AsyncIterator[bytes]:
    async for line in cut(response.aiter_bytes(), _LINE_ENDS):
        yield line


async def _translated(response: httpx.Response, reader: OllamaAnswer) -> AsyncIterator[bytes]:
    async for event in cut(response.aiter_bytes(), _EVENT_ENDS):
        chunk = object_of(event[5:].strip()) if event.startswith(b"data:") else None
        if chunk is None:
            continue
        if "error" in chunk:
            yield _line({"error": error_text(502, orjson.dumps(chunk))})
            return
        for one in reader.objects(chunk):
            yield _line(one)
    for one in reader.last():
        yield _line(one)


async def _lines(objects: list[Json]) -> AsyncIterator[bytes]:
    for one in objects:
        yield _line(one)


def _content(one: Mapping[str, Any]) -> str:
    message = one.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _part(model: str, text: str) -> Json:
    message = {"role": "assistant", "content": text}
    return {"model": model, "created_at": time_now(), "message": message, "done": False}


def _ended(model: str, reason: str) -> Json:
    return {**_part(model, ""), "done": True, "done_reason": reason}


def _line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"
