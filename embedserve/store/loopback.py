"""Addresses: this machine's own, a free port there, whether a Chroma answers on one."""

import socket
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def free_port(preferred: int) -> int:
    """Return `preferred` if it can still be had, so that the address stays, else a free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise OSError("no free port on the loopback address")


def answers(port: int, timeout_s: float) -> bool:
    """Tell whether a Chroma gives its heartbeat within the time."""
    connection = HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", "/api/v2/heartbeat")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def is_http(address: SplitResult) -> bool:
    """Tell whether an address names a host to speak HTTP with."""
    try:
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, or too large
        return False
