"""Sending bytes as they are, and reading no more of the answer than its status."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scripts.fuzz_report.broken import Request

ANSWER_S = 30.0
"""Longer than a right request takes while others are sent."""
OPEN_S = 1.0
"""As long as an answer is awaited to what the server may take for unfinished."""
CLIENTS = 8
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    request: Request
    status: int | None
    """None: the connection ended, or the time, without one."""
    seconds: float
    is_late: bool = False


def send_all(port: int, requests: list[Request]) -> list[Answer]:
    """Send the requests from several clients at once."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(lambda request: send(port, request), requests))


def send(port: int, request: Request) -> Answer:
    """Send one request on a connection of its own."""
    started = time.perf_counter()
    received, is_late = b"", False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as raw:
            raw.settimeout(ANSWER_S if request.ending == "whole" else OPEN_S)
            _write(raw, request)
            received = _read_status(raw)
    except TimeoutError:
        is_late = request.ending == "whole"
    except OSError:
        pass  # the server may close on what it does not understand
    return Answer(request, _status(received), time.perf_counter() - started, is_late)


def _write(raw: socket.socket, request: Request) -> None:
    try:
        for segment in request.segments:
            raw.sendall(segment)
            if request.pause_s:
                time.sleep(request.pause_s)
        if request.ending == "left":
            raw.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has answered early; the answer is there to be read


def _read_status(raw: socket.socket) -> bytes:
    received = b""
    while b"\r\n" not in received and len(received) < 4096:
        part = raw.recv(4096)
        if not part:
            break
        # "Go on" is no answer yet.
        received = (received + part).removeprefix(CONTINUE)
    return received


def _status(received: bytes) -> int | None:
    words = received.split(b" ", 2)
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:3].isdigit()
    return int(words[1][:3]) if is_http else None
