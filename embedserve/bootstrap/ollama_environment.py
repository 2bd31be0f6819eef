"""Ollama's environment variables, for users who have them: which setting each one is here.

Values are read as Ollama reads them: blanks and quotes around them do not count, and what makes
no sense is left out (with a reason, where Ollama has a warning in its log).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedserve.api.keep_alive import seconds_of
from embedserve.errors import InvalidRequestError, StartupError
from embedserve.setting_values import first_without_scheme

PREFIX = "OLLAMA_"
DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}

# Variables that have no counterpart here, and why.
_WITHOUT_COUNTERPART = {
    "OLLAMA_MODELS": "its folder holds GGUF files, which cannot be used here; "
    "EMBEDSERVE_HOME says where models lie",
    "OLLAMA_API_KEY": "it is a key for ollama.com; EMBEDSERVE_API_KEY is sent by the commands here",
    "OLLAMA_NUM_PARALLEL": "requests are batched by tokens, however many there are",
    "OLLAMA_CONTEXT_LENGTH": "the length is the model's own; a request may say `num_ctx`",
    "OLLAMA_LOAD_TIMEOUT": "an embedding model is loaded in a second or two",
    "OLLAMA_NOPRUNE": "nothing is left over that could be pruned",
    "OLLAMA_KV_CACHE_TYPE": "embedding models have no such cache",
    "OLLAMA_FLASH_ATTENTION": "the engine decides by itself",
}
_UNKNOWN = "it has no counterpart here"


@dataclass(frozen=True)
class OllamaEnvironment:
    """What Ollama's variables say."""

    values: dict[str, Any] = field(default_factory=dict)
    """By setting."""
    variables: dict[str, str] = field(default_factory=dict)
    """By setting: the variable that it is from."""
    ignored: dict[str, str] = field(default_factory=dict)
    """By variable: why it, or a part of it, has no effect."""


@dataclass(frozen=True)
class HostAddress:
    """What `OLLAMA_HOST` says."""

    host: str
    port: int
    note: str = ""
    """What of it has no effect."""


def read_ollama(environ: Mapping[str, str]) -> OllamaEnvironment:
    """Translate every `OLLAMA_*` variable; raise StartupError for origins that are none."""
    found = OllamaEnvironment()
    for variable, raw in sorted(environ.items()):
        value = raw.strip().strip("\"'").strip()
        if not variable.startswith(PREFIX) or not value:
            continue
        read = _READERS.get(variable)
        if read is None:
            found.ignored[variable] = _WITHOUT_COUNTERPART.get(variable, _UNKNOWN)
            continue
        try:
            values = read(value)
        except ValueError:
            found.ignored[variable] = f"`{value}` is none of the values that it takes"
            continue
        if note := values.pop("note", None):
            found.ignored[variable] = note
        found.values.update(values)
        found.variables.update(dict.fromkeys(values, variable))
    return found


def parse_host(value: str) -> HostAddress:
    """Read `[scheme://]host[:port][/path]` as Ollama does: a scheme brings its own port."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "", value
        if value == "ollama.com":
            scheme = "https"
    authority, slash, _ = rest.partition("/")
    notes = ["no TLS is spoken here"] if scheme == "https" else []
    notes += ["a path has no effect on a server"] if slash else []
    default = _SCHEME_PORTS.get(scheme, DEFAULT_PORT)
    host, port = _split_port(authority)
    if port is None:
        number = default
    elif port.isdigit() and int(port) <= 65535:
        number = int(port)
    else:
        number = default
        notes.append(f"`{port}` is no port; {default} is taken")
    # Go listens on every address for an empty host.
    return HostAddress(host or "0.0.0.0", number, "; ".join(notes))


def _split_port(authority: str) -> tuple[str, str | None]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", authority)
    if bracketed:
        return bracketed[1], bracketed[2]
    if authority.count(":") > 1:  # a bare IPv6 address
        return authority, None
    host, colon, port = authority.partition(":")
    return host, port if colon else None


def _host(value: str) -> dict[str, Any]:
    address = parse_host(value)
    found: dict[str, Any] = {"host": address.host, "port": address.port}
    return {**found, "note": address.note} if address.note else found


def _keep_alive(value: str) -> dict[str, Any]:
    try:
        return {"keep_alive_s": min(seconds_of(value) or 0.0, 1e9)}
    except InvalidRequestError as error:
        raise ValueError(str(error)) from error


def _count(setting: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if not value.isdigit():
            raise ValueError(value)
        return {setting: int(value)}

    return read


def _origins(value: str) -> dict[str, Any]:
    origins = tuple(part.strip() for part in value.split(",") if part.strip())
    if origin := first_without_scheme(origins):
        raise StartupError(
            f"OLLAMA_ORIGINS: `{origin}` lacks its scheme. Write `https://{origin}`."
        )
    return {"allowed_origins": origins}


def _debug(value: str) -> dict[str, Any]:
    return {} if value.lower() in ("0", "f", "false") else {"log_level": "debug"}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "OLLAMA_HOST": _host,
    "OLLAMA_ORIGINS": _origins,
    "OLLAMA_KEEP_ALIVE": _keep_alive,
    "OLLAMA_MAX_QUEUE": _count("max_requests"),
    "OLLAMA_MAX_LOADED_MODELS": _count("max_loaded_models"),
    "OLLAMA_DEBUG": _debug,
}
