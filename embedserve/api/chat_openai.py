"""OpenAI's dialect: chats with an index, in front of an upstream's model or without one.

Under `/v1` an answer carries `annotations`. Under `/openwebui/v1` it carries Open WebUI's events
(`status`, `source`) before its text instead, and only what can chat is listed. Shapes: docs/api.md.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
import orjson
from fastapi import APIRouter, Request, Response

from embedserve.api.body import Fields, read_object
from embedserve.api.chat_fields import body_for, read_turn
from embedserve.api.chat_lists import chat_models, with_problem
from embedserve.api.chat_reply import SSE, ChatReply, cut, object_of, opened, pass_on, whole
from embedserve.api.exchange import Answer
from embedserve.api.replies import json_reply, services
from embedserve.errors import InvalidRequestError, UpstreamError
from embedserve.services.chat import ChatModel, ChatService, ChatTurn, Grounded
from embedserve.services.chat_answer import citations
from embedserve.services.chat_names import is_chat_name
from embedserve.services.chat_passages import CitedDocument

router = APIRouter(tags=["chat"])

OPENWEBUI = "/openwebui/v1"
_DONE = b"data: [DONE]\n\n"
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@router.get(f"{OPENWEBUI}/models")
async def models(request: Request) -> Response:
    """List the models that answer from an index, and no others."""
    found = await chat_models(request)
    data = [model_of(one) for one in found.models]
    reply = json_reply({"object": "list", "data": data}, media_type="application/json")
    return with_problem(reply, found)


@router.post("/v1/chat/completions")
@router.post(f"{OPENWEBUI}/chat/completions")
async def completions(request: Request) -> Response:
    """Answer from an index: `{"model": "rag/INDEX", "messages", "stream", …}`."""
    value = await read_object(request)
    fields = Fields(value)
    name = fields.text("model")
    if not name.strip():
        raise InvalidRequestError("model is required", field="model")
    available = services(request)
    if not is_chat_name(name):
        await asyncio.to_thread(available.models.report, name)
        raise InvalidRequestError(f'"{name}" does not support chat', field="model")
    turn = read_turn(request, value, is_streamed=fields.flag("stream", default=False))
    has_events = request.url.path.startswith(OPENWEBUI)
    return ChatReply(partial(_answer, available.chat, turn, value, has_events=has_events))


def model_of(one: ChatModel) -> dict[str, Any]:
    """Return what lists say of a model."""
    return {"id": str(one.name), "object": "model", "created": one.created, "owned_by": "rag"}


async def _answer(
    chat: ChatService, turn: ChatTurn, value: Mapping[str, Any], answer: Answer, *, has_events: bool
) -> None:
    grounded = await chat.ground(turn)
    is_streamed = Fields(value).flag("stream", default=False)
    told = _Told(answer, grounded, str(turn.name), has_events=has_events)
    if grounded.target is None or grounded.text is not None:
        await (told.say_ours(value) if is_streamed else told.give_ours())
        return
    upstream = grounded.target.upstream
    body = body_for(value, grounded.target.model, grounded.messages)
    request = upstream.chat_request("openai", body, turn.authorization)
    # A stream that has nothing to tell yet keeps its status until the upstream has one.
    early = told.open if is_streamed and has_events and grounded.status else None
    async with opened(upstream.link.exchange(request), early) as response:
        if response.status_code != 200 or not grounded.status:
            await pass_on(response, answer)
        elif "event-stream" in response.headers.get("content-type", ""):
            await told.relay(response)
        else:
            await told.give(response)


class _Told:
    """One answer, with what is said beside the model's words."""

    def __init__(self, answer: Answer, grounded: Grounded, name: str, *, has_events: bool) -> None:
        self._answer = answer
        self._grounded = grounded
        self._has_events = has_events
        # In the middle of an answer, as after a tool's result, they have been shown already.
        self._events = _events(grounded) if has_events and not grounded.goes_on else []
        self._said = ""
        self._is_cited = False
        self._frame = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }

    async def open(self) -> None:
        """Begin the stream with what was found, once."""
        if self._answer.has_started:
            return
        await self._answer.begin(200, SSE)
        for event in self._events:
            # A chunk like others, for clients that know nothing of events.
            chunk = self._chunk({"role": "assistant", "content": ""})
            await self._answer.add(_line({**chunk, "event": event}))

    async def relay(self, response: httpx.Response) -> None:
        """Hand the upstream's stream on, with citations in its last chunk."""
        await self.open()
        async for event in cut(response.aiter_bytes(), _EVENT_ENDS):
            await self._answer.add(self._with_citations(event))
        await self._answer.end()

    async def give(self, response: httpx.Response) -> None:
        """Hand the upstream's whole answer on, with citations."""
        if self._answer.has_started:
            raise UpstreamError("The upstream did not stream its answer. Ask without `stream`.")
        reply = object_of(await response.aread())
        if reply is None:
            raise UpstreamError("The upstream's answer is no JSON. Send the request again.")
        for choice in reply.get("choices") or []:
            message = choice.get("message") or {}
            if isinstance(text := message.get("content"), str) and text:
                message["annotations"] = [
                    *(message.get("annotations") or []),
                    *self._annotations(text),
                ]
        await whole(self._answer, {**reply, "sources": _sources(self._grounded)})

    async def say_ours(self, value: Mapping[str, Any]) -> None:
        """Stream an answer that no model wrote."""
        text = self._grounded.text or ""
        await self.open()
        await self._answer.add(_line(self._chunk({"role": "assistant", "content": text})))
        last = {} if self._has_events else {"annotations": self._annotations(text)}
        await self._answer.add(_line(self._chunk(last, finish="stop")))
        options = value.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            usage = {**self._chunk({}), "choices": [], "usage": _NO_USAGE}
            await self._answer.add(_line(usage))
        await self._answer.end(_DONE)

    async def give_ours(self) -> None:
        """Give an answer that no model wrote."""
        text = self._grounded.text or ""
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": self._annotations(text),
        }
        reply = {
            **self._frame,
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            ],
            "usage": _NO_USAGE,
            "sources": _sources(self._grounded),
        }
        await whole(self._answer, reply)

    def _with_citations(self, event: bytes) -> bytes:
        """Note what an event says; add the citations to the one that ends the text."""
        if self._has_events or not event.startswith(b"data:"):
            return event
        chunk = object_of(event[5:].strip())
        choices = chunk.get("choices") if chunk else None
        if not chunk or not isinstance(choices, list):
            return event
        for choice in choices:
            delta = choice.get("delta") or {}
            if choice.get("index", 0) == 0 and isinstance(delta.get("content"), str):
                self._said += delta["content"]
            if choice.get("finish_reason") and self._said and not self._is_cited:
                self._is_cited = True
                choice["delta"] = {**delta, "annotations": self._annotations(self._said)}
                return _line(chunk)
        return event

    def _annotations(self, text: str) -> list[dict[str, Any]]:
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "url": one.document.url,
                    "title": one.document.name,
                    "start_index": one.start,
                    "end_index": one.end,
                },
            }
            for one in citations(text, self._grounded.documents)
        ]

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._frame, "object": "chat.completion.chunk", "choices": [choice]}


def _events(grounded: Grounded) -> list[dict[str, Any]]:
    """Return Open WebUI's events: what was found, then each source in the order of its number."""
    status = {"description": grounded.status, "done": True}
    sources = [{"type": "source", "data": one} for one in _sources(grounded)]
    return [{"type": "status", "data": status}, *sources]


def _sources(grounded: Grounded) -> list[dict[str, Any]]:
    return [source_of(document) for document in grounded.documents]


def source_of(document: CitedDocument) -> dict[str, Any]:
    """Return a document as Open WebUI shows it, with a link to its best passage.

    `metadata.source` is what it groups by. An address there is shown in place of the name, and sent
    to a search engine for its icon, with the code that opens the document; so it is none.
    """
    name = document.name.removeprefix("https://").removeprefix("http://")
    identity = f"{document.number} {document.path}"
    metadata = [
        {
            "source": identity,
            "name": name,
            "url": one.url,
            # It counts pages from 0, and shows them from 1.
            **({"page": one.page - 1} if one.page else {}),
            **({"heading": " / ".join(one.heading)} if one.heading else {}),
        }
        for one in document.passages
    ]
    return {
        "source": {"id": identity, "name": name, "url": document.url},
        "document": [one.text for one in document.passages],
        "metadata": metadata,
        "distances": [round(one.score, 4) for one in document.passages],
    }


def _line(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
