"""`embedserve doctor`: does a server give known clients what they need, and how are they set up.

It talks HTTP to whatever address it is given, so it also looks at a server on another machine,
through a proxy, or at Ollama itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import typer

from embedserve.bootstrap.address import url_at
from embedserve.bootstrap.sources import read_all
from embedserve.cli.checks import Check, general_checks
from embedserve.cli.client import Home
from embedserve.cli.console import AsJson, output, print_json, print_table
from embedserve.cli.recordings.calls import Names, Recording, recordings
from embedserve.cli.recordings.replay import Outcome, replay
from embedserve.errors import NotFoundError
from embedserve.settings import Settings
from embedserve.store.home_lock import owner_of

TIMEOUT_S = 60.0
"""Longer than a first request takes, which may load the model."""

ClientName = Annotated[
    str | None,
    typer.Option(
        "--client", help="Client whose calls are tried, such as openwebui.", show_default=False
    ),
]
Url = Annotated[
    str | None,
    typer.Option(help="Address of the server; else that of the home's.", show_default=False),
]


@dataclass(frozen=True)
class Finding:
    """What trying one client gave."""

    client: Recording
    outcomes: tuple[Outcome, ...]

    @property
    def is_served(self) -> bool:
        """Tell whether every call that was tried gave the client what it needs."""
        return not any(outcome.problems for outcome in self.outcomes)


def doctor(  # noqa: PLR0913  # each parameter is an option of the command
    client: ClientName = None,
    url: Url = None,
    model: Annotated[
        str | None, typer.Option(help="Embedding model that the client uses.", show_default=False)
    ] = None,
    reranker: Annotated[
        str | None, typer.Option(help="Reranker that it uses.", show_default=False)
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            help="Key, where the server wants one; EMBEDSERVE_API_KEY without --url.",
            show_default=False,
        ),
    ] = "",
    change: Annotated[
        bool, typer.Option("--change", help="Try calls that pull or unload a model, too.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Try what a client calls, and print its settings; status 1 if the server falls short."""
    known = recordings()
    if client is not None and client not in known:
        raise NotFoundError(f"No client `{client}` is known. Known are: {', '.join(known)}.")
    settings = read_all({"home": home}).settings
    names = Names(
        model or settings.default_model,
        _address(url, settings),
        key=key or own_key(url, settings),
        reranker=reranker or "",
    )
    with _caller() as http:
        if client is None:
            _report_server(general_checks(http, names), names, as_json=as_json)
        else:
            found = try_client(http, known[client], names, changes=change)
            _report_client(found, names, as_json=as_json)


def try_client(
    http: httpx.Client, client: Recording, names: Names, *, changes: bool = False
) -> Finding:
    """Replay a client's calls; those that alter something only with `changes`."""
    outcomes = []
    for call in client.calls:
        if call.changes and not changes:
            skipped = f"{call.changes}: --change tries it"
        elif call.takes_reranker and not names.reranker:
            skipped = "no reranker is named: --reranker NAME"
        else:
            outcomes.append(replay(http, call, names))
            continue
        outcomes.append(Outcome(call, skipped=skipped))
    return Finding(client, tuple(outcomes))


def _address(url: str | None, settings: Settings) -> str:
    """Return the server's address: what was given, what serves the home, or the settings'."""
    if url is None:
        owner = owner_of(settings.home)
        url = (owner.url if owner else None) or url_at(settings.host, settings.port)
    url = url if "://" in url else f"http://{url}"
    return url.rstrip("/").removesuffix("/v1")


def own_key(url: str | None, settings: Settings) -> str:
    """Return the key of the settings for the home's own server; no other address is told it."""
    return settings.api_key.get_secret_value() if settings.api_key and url is None else ""


@contextmanager
def _caller() -> Iterator[httpx.Client]:
    # What is tried is the address itself; a proxy of the environment would answer for it.
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        yield http


def _report_server(checks: list[Check], names: Names, *, as_json: bool) -> None:
    known = recordings()
    if as_json:
        rows = [vars(check) for check in checks]
        clients = {name: known[name].name for name in known}
        print_json({"url": names.url, "model": names.model, "checks": rows, "clients": clients})
    else:
        output.print(f"Server at {names.url}, model {names.model}\n")
        print_table([[check.state, check.name, check.words] for check in checks])
        output.print("\nTry what a client calls with `embedserve doctor --client NAME`:\n")
        print_table([[name, known[name].name] for name in known])
    if any(check.state == "FAIL" for check in checks):
        raise typer.Exit(1)


def _report_client(found: Finding, names: Names, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(found, names))
    else:
        _print_client(found, names)
    if not found.is_served:
        raise typer.Exit(1)


def _print_client(found: Finding, names: Names) -> None:
    client = found.client
    output.print(f"{client.name} at {names.url}, model {names.model}\n")
    print_table([_row(outcome) for outcome in found.outcomes])
    remedies = [o.call.remedy for o in found.outcomes if o.problems and o.call.remedy]
    for remedy in dict.fromkeys(remedies):
        output.print(f"\nTo do: {names.fill(remedy)}")
    output.print(f"\nSettings:\n\n{names.fill(client.settings)}\n\nTo know:")
    for trap in client.traps:
        output.print(f"- {names.fill(trap)}")
    output.print(f"\nWhere the calls come from: {client.basis}")


def _row(outcome: Outcome) -> list[str]:
    call = outcome.call
    if outcome.skipped:
        state, words = "-", outcome.skipped
    else:
        state = "FAIL" if outcome.problems else "ok"
        words = "; ".join(outcome.problems) or f"{outcome.ms:.0f} ms"
    return [state, f"{call.method} {call.path}", call.purpose, words]


def _as_json(found: Finding, names: Names) -> dict[str, Any]:
    client = found.client
    calls = [
        {
            "purpose": outcome.call.purpose,
            "method": outcome.call.method,
            "path": outcome.call.path,
            "status": outcome.status,
            "ms": round(outcome.ms, 1),
            "problems": outcome.problems,
            "skipped": outcome.skipped or None,
            "remedy": names.fill(outcome.call.remedy) if outcome.problems else None,
        }
        for outcome in found.outcomes
    ]
    return {
        "client": client.id,
        "name": client.name,
        "url": names.url,
        "model": names.model,
        "is_served": found.is_served,
        "calls": calls,
        "settings": names.fill(client.settings),
        "traps": [names.fill(trap) for trap in client.traps],
        "basis": client.basis,
    }
