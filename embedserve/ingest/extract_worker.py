"""The process that opens foreign bytes. Started by `extract.ExtractorPool`, never imported by it.

    python -m embedserve.ingest.extract_worker SOCKET_FD PARENT_PID MEMORY_BYTES FOLDER parsers|text

With `text` it does without the parsers, which are most of its memory, and says of a file that needs
them just that. It imports what it needs, closes the jail around itself, says so, and then answers
requests one by one until the socket closes. The bytes come as an open descriptor with each request.
Messages both ways are JSON behind their length (4 bytes, big-endian). The last answer to a request
has all there is to say; before it, a long text comes as answers with a `piece` of it each.
"""

import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from embedserve.errors import ExtractionError
from embedserve.ingest import assemble, decode, jail
from embedserve.ingest.kinds import is_stream, needs_parsers
from embedserve.ingest.limits import ReadLimits
from embedserve.ingest.long_text import HEAD_BYTES, LongText
from embedserve.ingest.readers import Read, refusal
from embedserve.ingest.sniffing import kind_by, read_plain

MAX_REQUEST_BYTES = 65_536
MAX_WARNINGS = 10


def main() -> None:
    """Serve requests on the socket given on the command line until it closes."""
    fd, parent_pid, memory_bytes = map(int, sys.argv[1:4])
    decode.preload()
    read = _parsed if sys.argv[5] == "parsers" else _plain
    if read is _parsed:
        from embedserve.ingest import reading

        reading.preload()
    with socket.socket(fileno=fd) as channel:
        _send(channel, {"jail": jail.apply(memory_bytes, parent_pid, readable=sys.argv[4])})
        while (request := _receive(channel)) is not None:
            for reply in _answers(request, read):
                _send(channel, reply)


@dataclass(frozen=True)
class _Request:
    name: str
    limits: ReadLimits
    timeout_s: float
    file: int


class _NeedsParsersError(Exception):
    """A file is for a worker that has loaded the parsers."""


_Reader = Callable[[bytes, _Request], Read]


def _plain(content: bytes, request: _Request) -> Read:
    kind = kind_by(content, request.name)
    if needs_parsers(kind):
        raise _NeedsParsersError
    return read_plain(content, kind, request.limits)


def _parsed(content: bytes, request: _Request) -> Read:
    from embedserve.ingest.reading import Reading, deadline_of  # has been loaded at the start

    deadline = deadline_of(request.timeout_s)
    return Reading(request.limits, deadline).read(content, request.name)


def _receive(channel: socket.socket) -> _Request | None:
    received, fds, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, 1)
    while received and len(received) < 4 + int.from_bytes(received[:4], "big"):
        more = channel.recv(MAX_REQUEST_BYTES)
        received = received + more if more else b""
    if not received:
        return None
    fields = json.loads(received[4:])
    return _Request(fields["name"], ReadLimits(**fields["limits"]), fields["timeout_s"], fds[0])


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    body = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
    channel.sendall(struct.pack(">I", len(body)))
    channel.sendall(body)


def _answers(request: _Request, read: _Reader) -> Iterator[dict[str, Any]]:
    try:
        with open(request.file, "rb") as file:
            yield from _read(file, request, read)
    except _NeedsParsersError:
        yield {"needs_parsers": True}
    except ExtractionError as error:
        yield {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "is_retryable": error.is_retryable,
        }
    except MemoryError:
        yield {"code": "out_of_memory", "message": "Reading it took more memory than allowed."}
    except RecursionError:
        yield {"code": "too_nested", "message": "Its parts lie too deep inside of each other."}
    except Exception as error:
        yield {"code": "corrupt", "message": f"{type(error).__name__}: {str(error)[:300]}"}


def _read(file: BinaryIO, request: _Request, read: _Reader) -> Iterator[dict[str, Any]]:
    _limit_cpu(request)
    limits, size = request.limits, os.fstat(file.fileno()).st_size
    if size > min(limits.stream_above_bytes, limits.max_file_bytes):
        kind = kind_by(file.read(HEAD_BYTES), request.name)
        if is_stream(kind):
            yield from _stream(LongText(file, request.name, kind), request)
            return
        file.seek(0)
    if size > limits.max_file_bytes:
        raise refusal("too_large", f"It has {size} bytes.")
    # One byte more than allowed tells that the file has grown since it was measured.
    yield _extract(file.read(limits.max_file_bytes + 1), request, read)


def _limit_cpu(request: _Request) -> None:
    jail.limit_cpu(request.timeout_s * (os.cpu_count() or 1))


def _stream(text: LongText, request: _Request) -> Iterator[dict[str, Any]]:
    for piece in text.pieces():
        yield {"piece": piece}
        _limit_cpu(request)  # the time is for each piece
    yield {
        "text": "",
        "kind": text.kind.kind,
        "title": text.title,
        "sha256": text.sha256,
        "size_bytes": text.size_bytes,
        "pages": [],
        "members": [],
        "warnings": text.warnings,
    }


def _extract(content: bytes, request: _Request, reader: _Reader) -> dict[str, Any]:
    limits = request.limits
    if len(content) > limits.max_file_bytes:
        raise refusal("too_large", f"It grew over {limits.max_file_bytes} bytes while it was read.")
    read = reader(content, request)
    document = assemble.document(read, limits.max_text_chars)
    return {
        "text": document.text,
        "kind": read.kind,
        "title": assemble.title(read, document, request.name),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "pages": document.pages,
        "members": document.members,
        "warnings": _few(list(dict.fromkeys(read.warnings))),
        "is_plain": kind_by(content, request.name).reader == "text",
    }


def _few(warnings: list[str]) -> list[str]:
    if len(warnings) <= MAX_WARNINGS:
        return warnings
    kept = warnings[: MAX_WARNINGS - 1]
    return [*kept, f"{len(warnings) - len(kept)} more warnings were left out."]


if __name__ == "__main__":
    main()
