"""What a server must do for any client at all: be there, have the model, embed."""

import socket
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from embedserve.bootstrap.address import is_loopback
from embedserve.cli.recordings.calls import Call, Names, Need
from embedserve.cli.recordings.replay import replay

REACH_S = 2.0
"""Seconds to try the same server by this machine's other address."""


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    state: Literal["ok", "FAIL", "note"]
    words: str


def general_checks(http: httpx.Client, names: Names) -> list[Check]:
    """Ask in the order in which one answer is the ground for the next; end where it is lost."""
    found = [_reachable(http, names)]
    if found[-1].state != "FAIL":
        found.append(_installed(http, names))
    if found[-1].state != "FAIL":
        found.append(_embeds(http, names))
    if found[0].state != "FAIL":
        found.append(_reach(names))
    return found


def _reachable(http: httpx.Client, names: Names) -> Check:
    outcome = replay(http, _call("GET", "/api/version", Need("version", "version")), names)
    if outcome.problems and outcome.status is None:
        hint = "Is it started (`embedserve serve`), and is the address right?"
        return Check("reachable", "FAIL", f"{outcome.problems[0]}. {hint}")
    if outcome.problems:
        hint = "Is it embedserve that runs there?"
        return Check("reachable", "FAIL", f"{outcome.problems[0]}. {hint}")
    ours = outcome.answer.get("embedserve")
    server = f"embedserve {ours}" if ours else "not embedserve"
    return Check(
        "reachable", "ok", f"{server}, speaks Ollama {outcome.answer['version']}{_in(outcome.ms)}"
    )


def _installed(http: httpx.Client, names: Names) -> Check:
    call = _call("GET", "/api/tags", Need("models", "listing", "{model}"))
    outcome = replay(http, call, names)
    if not outcome.problems:
        return Check("model", "ok", f"{names.model} is installed")
    if outcome.status != 200:
        return Check("model", "FAIL", f"{outcome.problems[0]}. A key goes with --key.")
    installed = [str(model.get("name")) for model in _models(outcome.answer)]
    have = f"installed: {', '.join(installed)}" if installed else "none is installed"
    pull = f"Run `embedserve pull {names.model}`, or name another with --model"
    return Check("model", "FAIL", f"{names.model} is not installed ({have}). {pull}.")


def _models(answer: Any) -> list[dict[str, Any]]:  # noqa: ANN401  any JSON value
    models = answer.get("models") if isinstance(answer, dict) else None
    return [model for model in models or () if isinstance(model, dict)]


def _embeds(http: httpx.Client, names: Names) -> Check:
    body = '{"model": "{model}", "input": ["Is it well?", "It is."]}'
    call = _call("POST", "/api/embed", Need("embeddings", "vectors", 2), body=body)
    outcome = replay(http, call, names)
    if outcome.problems:
        return Check("embeds", "FAIL", f"{outcome.problems[0]}. The server's log has more.")
    width = len(outcome.answer["embeddings"][0])
    return Check("embeds", "ok", f"2 vectors of {width} numbers and length 1{_in(outcome.ms)}")


def _reach(names: Names) -> Check:
    """Say how clients elsewhere, containers above all, reach the server."""
    parts = urlsplit(names.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not is_loopback(parts.hostname or ""):
        return Check("from elsewhere", "note", f"clients elsewhere use {names.url} as well")
    container = f"http://host.docker.internal:{port}"
    other = _other_address()
    if other and _answers(other, port):
        return Check(
            "from elsewhere",
            "note",
            f"containers use {container} (on Linux with `--add-host "
            f"host.docker.internal:host-gateway`), other machines http://{other}:{port}",
        )
    return Check(
        "from elsewhere",
        "note",
        "only programs of this machine reach it, and 127.0.0.1 inside a container is the "
        f"container. For those, serve with `--host 0.0.0.0` and use {container}; "
        "mind docs/operations.md, Security",
    )


def _other_address() -> str | None:
    """Return this machine's address on its network, None when it has none; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation: only a route is sought
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if is_loopback(address) else address


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=REACH_S):
            return True
    except OSError:
        return False


def _call(method: str, path: str, need: Need, *, body: str | None = None) -> Call:
    return Call(
        purpose="",
        method=method,
        path=path,
        headers=(("Content-Type", "application/json"),) if body else (),
        body=body,
        status=200,
        reply="json",
        needs=(need,),
        changes="",
        remedy="",
        takes_reranker=False,
    )


def _in(ms: float) -> str:
    return f", in {ms:.0f} ms"
