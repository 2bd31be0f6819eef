"""The recorded calls as nouns, and how they are read from their files."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from embedserve.cli.recordings.needs import KINDS

Reply = Literal["json", "lines", "text", "none"]
"""How a client reads the answer: one JSON value, a line of JSON each, as text, or not at all."""


@dataclass(frozen=True)
class Need:
    """One thing that a client reads in an answer."""

    at: str
    """Where: keys and positions with slashes between; `*` is every one, `~*.x` a key that ends so;
    empty is the whole answer."""
    kind: str
    """A name in `needs.KINDS`."""
    of: Any = None
    """What the kind compares with."""


@dataclass(frozen=True)
class Call:
    """One request of a client, byte for byte, and what it does with the answer."""

    purpose: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    """In their order and spelling, without those that every HTTP library counts by itself."""
    body: str | None
    status: int
    reply: Reply
    needs: tuple[Need, ...]
    changes: str
    """What the call alters on the server; empty for a call that alters nothing."""
    remedy: str
    """What to do when the answer does not serve the client."""
    takes_reranker: bool


@dataclass(frozen=True)
class Recording:
    """What one client does, and how it is told to do it here."""

    id: str
    name: str
    basis: str
    """Where the calls come from: captured from which version, or read in which source."""
    settings: str
    traps: tuple[str, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Names:
    """What stands for the placeholders `{model}`, `{reranker}`, `{url}` and `{key}`."""

    model: str
    url: str
    key: str = ""
    reranker: str = ""

    def fill(self, text: str) -> str:
        """Put the names where their placeholders are."""
        pairs = {"model": self.model, "url": self.url, "reranker": self.reranker}
        for name, value in {**pairs, "key": self.key or "none"}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def fill_json(self, text: str) -> str:
        """Put the names in the strings of a JSON text, with `"` and the like escaped."""
        names = {name: json.dumps(value)[1:-1] for name, value in vars(self).items()}
        return Names(**names).fill(text)


@cache
def recordings() -> Mapping[str, Recording]:
    """Return every recording by its id, in alphabetical order."""
    folder = files("embedserve.cli.recordings")
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return {
        name.removesuffix(".toml"): _recording(
            name.removesuffix(".toml"), tomllib.loads(folder.joinpath(name).read_text("utf-8"))
        )
        for name in found
    }


def _recording(name: str, table: dict[str, Any]) -> Recording:
    return Recording(
        id=name,
        name=table["name"],
        basis=table["basis"],
        settings=table["settings"].strip(),
        traps=tuple(table.get("traps", ())),
        calls=tuple(_call(call, table.get("headers", {})) for call in table["calls"]),
    )


def _call(table: dict[str, Any], sets: dict[str, list[list[str]]]) -> Call:
    """Read a call; its headers may name a set that several calls share."""
    headers = table.get("headers", [])
    pairs = sets[headers] if isinstance(headers, str) else headers
    needs = tuple(Need(need["at"], need["is"], need.get("of")) for need in table.get("needs", ()))
    for need in needs:
        if need.kind not in KINDS:
            raise ValueError(f"This is a bug: `{need.kind}` is no kind of need.")
    return Call(
        purpose=table["purpose"],
        method=table["method"],
        path=table["path"],
        headers=tuple((name, value) for name, value in pairs),
        body=table.get("body"),
        status=table.get("status", 200),
        reply=cast(Reply, table.get("reply", "json")),
        needs=needs,
        changes=table.get("changes", ""),
        remedy=table.get("remedy", ""),
        takes_reranker="{reranker}" in table.get("body", ""),
    )
