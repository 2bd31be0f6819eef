"""Looks at the beginning of a request's body, and hands the whole of it on."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson
from starlette.types import Message, Receive

from embedserve.api.body import Fields

HEAD_BYTES = 1024 * 1024
"""What is held of a body at most; a name that comes later is not found."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]|[^"{}\[\]:,]++', re.DOTALL)


@dataclass
class Recording:
    """A `receive` that remembers what passed, so that another can read it from the beginning."""

    receive: Receive
    messages: list[Message] = field(default_factory=list)
    is_over: bool = False
    """Nobody will read from the beginning any more."""

    async def __call__(self) -> Message:
        """Receive the next message."""
        message = await self.receive()
        if message["type"] == "http.request" and not self.is_over:
            self.messages.append(message)
        return message

    def forget(self) -> None:
        """Let go of what passed: it has been answered."""
        self.is_over = True
        self.messages.clear()

    def replay(self) -> Receive:
        """Return a `receive` that begins at the beginning."""
        passed = iter(self.messages)

        async def receive() -> Message:
            return next(passed, None) or await self.receive()

        return receive

    async def read_head(self) -> bytes:
        """Read the body, or its first `HEAD_BYTES`."""
        parts: list[bytes] = []
        size, is_more = 0, True
        while is_more and size < HEAD_BYTES:
            message = await self()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            is_more = message.get("more_body", False)
        return b"".join(parts)


def find_name(head: bytes, fields: Sequence[str]) -> str | None:
    """Return the first of `fields` that is a text in a JSON object, whole or cut off."""
    try:
        value = orjson.loads(head)
    except orjson.JSONDecodeError:
        value = _outer_texts(head)
    if not isinstance(value, dict):
        return None
    found = Fields(value)
    texts = (found.raw(name) for name in fields)
    return next((text for text in texts if isinstance(text, str) and text), None)


def _outer_texts(head: bytes) -> dict[str, str]:
    """Return the fields of the outermost object that are texts, as far as `head` reaches."""
    found: dict[str, str] = {}
    depth, key, is_value = 0, b"", False
    for token in _tokens(head):
        first = token[:1]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif first == b'"' and depth == 1:
            if is_value:
                found |= _field(key, token)
            key = token
        if first in b":,{}[]":
            is_value = first == b":"
    return found


def _tokens(head: bytes) -> Iterator[bytes]:
    """Cut JSON into texts, marks and what is between, up to a text that has no end."""
    position = 0
    while token := _TOKEN.match(head, position):
        position = token.end()
        if token[0].strip():
            yield token[0]


def _field(key: bytes, text: bytes) -> dict[str, str]:
    try:
        return {orjson.loads(key): orjson.loads(text)}
    except orjson.JSONDecodeError:
        return {}
