"""A recorded call is sent again, byte for byte, and its answer read as the client reads it."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from embedserve.cli.recordings.calls import Call, Names, Need
from embedserve.cli.recordings.needs import KINDS, MissingError, values_at

_SHOWN = 100


@dataclass(frozen=True)
class Outcome:
    """What came of one call."""

    call: Call
    problems: tuple[str, ...] = ()
    skipped: str = ""
    """Why it was not sent; empty for a call that was."""
    status: int | None = None
    ms: float = 0.0
    answer: Any = field(default=None, repr=False)


def replay(http: httpx.Client, call: Call, names: Names) -> Outcome:
    """Send a call to the server at `names.url` and say what its client would miss in the answer."""
    started = time.perf_counter()
    try:
        # Not `http.request`: it would add headers of its own.
        reply = http.send(request_of(call, names))
    except httpx.HTTPError as error:
        return Outcome(call, (f"no answer: {error or type(error).__name__}",))
    except (httpx.InvalidURL, UnicodeError) as error:
        # An address that is none, or a key with letters that no header can carry.
        return Outcome(call, (f"it cannot be sent: {error}",))
    ms = (time.perf_counter() - started) * 1000
    answer, problems = _read(reply, call, names)
    return Outcome(call, problems, "", reply.status_code, ms, answer)


def request_of(call: Call, names: Names) -> httpx.Request:
    """Return the request as the client sends it; a key goes where the server will look for it."""
    headers = [(name, names.fill(value)) for name, value in call.headers]
    if names.key and all(name.lower() != "authorization" for name, _ in headers):
        headers.append(("Authorization", f"Bearer {names.key}"))
    body = names.fill_json(call.body).encode() if call.body is not None else None
    return httpx.Request(call.method, names.url + call.path, headers=headers, content=body)


def _read(reply: httpx.Response, call: Call, names: Names) -> tuple[Any, tuple[str, ...]]:
    """Return the answer as the client has it, and what is wrong with it."""
    if reply.status_code != call.status:
        return None, (f"status {reply.status_code} instead of {call.status}: {_short(reply.text)}",)
    try:
        answer = _parsed(reply, call)
    except ValueError:
        return None, (f"not the {call.reply} that it reads: {_short(reply.text)}",)
    return answer, tuple(
        problem for need in call.needs for problem in _missing(answer, need, names)
    )


def _parsed(reply: httpx.Response, call: Call) -> object:
    if call.reply == "json":
        return reply.json()
    if call.reply == "lines":
        return [json.loads(line) for line in reply.text.splitlines() if line]
    return reply.text


def _missing(answer: object, need: Need, names: Names) -> list[str]:
    of = names.fill(need.of) if isinstance(need.of, str) else need.of
    place = f"`{need.at}`" if need.at else "the answer"
    try:
        wrong = [value for value in values_at(answer, need.at) if not KINDS[need.kind](value, of)]
    except MissingError as error:
        return [f"{place} is missing (nothing at `{error}`)"]
    wanted = f"{need.kind} {of}" if of is not None else need.kind
    return [f"{place} is not {wanted}: {_short(json.dumps(value))}" for value in wrong[:1]]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..."
