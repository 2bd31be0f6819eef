"""The address to listen on."""

import socket
from ipaddress import ip_address

from embedserve.errors import StartupError


def listen(host: str, port: int) -> socket.socket:
    """Bind the address before anything heavy starts; raise StartupError that says what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartupError(f"Host `{host}` is not an address: {error.strerror}.") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"Port {port} on {host} cannot be used ({error.strerror}). "
            + (
                "Ollama itself usually sits there; choose another: `--port 11435`."
                if port == 11434
                else "Choose another with `--port`."
            )
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address that a client on this machine uses for a listening socket."""
    host, port = listener.getsockname()[:2]
    return url_at(host, port)


def url_at(host: str, port: int) -> str:
    """Return the address that a client on this machine uses for who listens at `host`."""
    # "Every address" is no address to call; loopback reaches it.
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to who listens at `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
