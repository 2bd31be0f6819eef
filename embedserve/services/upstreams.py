"""Servers with language models that answer from what an index has: which there are, and whose.

A server speaks OpenAI's API when its address has a path, such as `https://api.example/v1`, else
Ollama's.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson

from embedserve import __version__
from embedserve.errors import ChatModelNotFoundError, ModelNotFoundError, UpstreamError
from embedserve.services.chat_names import LATEST, PREFIX
from embedserve.services.upstream_link import (
    PASSTHROUGH,
    Header,
    UpstreamAddress,
    UpstreamLink,
    new_via,
)

logger = logging.getLogger(__name__)

Dialect = Literal["ollama", "openai"]

# Parts of the names of models that write no text.
_MUTE = (
    *("embed", "bge-", "minilm", "rerank", "whisper", "tts-", "dall-e", "moderation"),
    *("transcribe", "gpt-image", "sora-"),
)
_MUTE_FAMILIES = ("bert",)  # nomic-bert and xlm-roberta as well


class Upstream:
    """One server."""

    def __init__(self, address: UpstreamAddress, dialect: Dialect, via: bytes) -> None:
        self.link = UpstreamLink(address, via)
        self.dialect = dialect
        self.models: Sequence[str] = ()
        """What it had when it was asked last."""

    @property
    def name(self) -> str:
        """Return what its users call it."""
        return self.link.address.name

    async def refresh(self, authorization: str = "") -> None:
        """Ask which models it has; raise UpstreamError."""
        is_ollama = self.dialect == "ollama"
        target = b"/api/tags" if is_ollama else b"/models"
        request = self.link.request("GET", target, self._headers(authorization))
        try:
            body = orjson.loads(await self.link.fetch(request))
            found = body["models" if is_ollama else "data"] or []
            self.models = [_name(one) for one in found if _writes(one)]
        except (ValueError, KeyError, TypeError) as error:
            raise UpstreamError(
                f"The upstream `{self.name}` gave no list of models ({error}). See whether its "
                f"address in {self.link.address.setting} is that of an Ollama, or of OpenAI's API."
            ) from error

    def chat_request(
        self, dialect: Dialect, body: Mapping[str, Any], authorization: str
    ) -> httpx.Request:
        """Return a request for an answer; an Ollama takes both dialects."""
        if dialect == "ollama":
            target = b"/api/chat"
        else:
            target = b"/v1/chat/completions" if self.dialect == "ollama" else b"/chat/completions"
        return self._post(target, body, authorization)

    async def describe(self, model: str, authorization: str) -> dict[str, Any]:
        """Return what an Ollama shows of a model; empty for another server. Raise UpstreamError."""
        if self.dialect != "ollama":
            return {}
        try:
            request = self._post(b"/api/show", {"model": model}, authorization)
            shown = orjson.loads(await self.link.fetch(request))
        except ValueError as error:
            raise UpstreamError(
                f"The upstream `{self.name}` does not describe `{model}` ({error})."
            ) from error
        return shown if isinstance(shown, dict) else {}

    def _post(self, target: bytes, body: Mapping[str, Any], authorization: str) -> httpx.Request:
        headers = [(b"content-type", b"application/json"), *self._headers(authorization)]
        return self.link.request("POST", target, headers, orjson.dumps(body))

    def _headers(self, authorization: str) -> list[Header]:
        address = self.link.address
        known = [(b"user-agent", b"embedserve/" + __version__.encode())]
        if address.key:
            authorization = f"Bearer {address.key}"
        elif address.keeps_keys:
            authorization = ""
        return [*known, (b"authorization", authorization.encode())] if authorization else known


@dataclass(frozen=True)
class UpstreamModel:
    """A model and the server that has it."""

    upstream: Upstream
    model: str
    """As it is called there."""
    listed: str
    """As it is called here: with the server's name where another has one of that name, too."""


class Upstreams:
    """All of them, the first named first where several have a model."""

    def __init__(self, addresses: Sequence[UpstreamAddress]) -> None:
        """The one of EMBEDSERVE_UPSTREAM is an Ollama whatever its address."""
        via = new_via()
        self.all = [Upstream(one, dialect_of(one), via) for one in addresses]

    @property
    def passthrough(self) -> UpstreamLink | None:
        """Return the connections to the one that gets what is not served here, if there is one."""
        links = (one.link for one in self.all if one.link.address.setting == PASSTHROUGH)
        return next(links, None)

    async def close(self) -> None:
        """Close the connections that are idle."""
        for one in self.all:
            await one.link.close()

    def has_passed(self, headers: Iterable[Header]) -> bool:
        """Tell whether a request comes from this very server."""
        return any(one.link.has_passed(headers) for one in self.all)

    async def refresh(self, authorization: str = "") -> list[UpstreamError]:
        """Ask every server for its models; return what kept some from telling."""
        asked = (one.refresh(authorization) for one in self.all)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        problems = [error for error in ended if isinstance(error, UpstreamError)]
        if others := [one for one in ended if one is not None and one not in problems]:
            raise others[0]
        return problems

    def models(self) -> list[UpstreamModel]:
        """Return what the servers had when they were asked last."""
        found: dict[str, UpstreamModel] = {}
        for upstream in self.all:
            for model in upstream.models:
                listed = f"{upstream.name}/{model}" if model in found else model
                found[listed] = UpstreamModel(upstream, model, listed)
        return list(found.values())

    async def find(self, name: str, authorization: str = "") -> UpstreamModel:
        """Return the model of a name, or the first one for an empty name.

        Raises ModelNotFoundError, and UpstreamError where it may be on a server that is away.
        """
        if len(self.all) == 1 and name:
            # It knows best what it has; its own refusal is passed on.
            only = self.all[0]
            model = name.removesuffix(LATEST) if only.dialect == "openai" else name
            return UpstreamModel(only, model.removeprefix(f"{only.name}/"), name)
        if known := self._known(name):
            return known
        problems = await self.refresh(authorization)
        if known := self._known(name):
            return known
        if problems:
            raise problems[0]
        if not name:
            servers = ", ".join(f"`{one.name}`" for one in self.all)
            raise ChatModelNotFoundError(
                f"No upstream ({servers}) has a model that writes text. Pull one there, or name "
                "one by EMBEDSERVE_CHAT_MODEL."
            )
        raise ModelNotFoundError(name)

    def _known(self, name: str) -> UpstreamModel | None:
        models = self.models()
        if not name:
            return models[0] if models else None
        by_name = {one.listed: one for one in models}
        short = name.removesuffix(LATEST)
        found = by_name.get(name) or by_name.get(short) or by_name.get(name + LATEST)
        if found:
            return found
        server, _, model = name.partition("/")
        named = (one for one in self.all if one.name == server and model)
        return next((UpstreamModel(one, model, name) for one in named), None)


def dialect_of(address: UpstreamAddress) -> Dialect:
    """Return what a server speaks."""
    has_path = httpx.URL(address.url).path.strip("/") != ""
    return "openai" if has_path and address.setting != PASSTHROUGH else "ollama"


def _name(model: Mapping[str, Any]) -> str:
    return str(model.get("id") or model.get("model") or model["name"])


def _writes(model: object) -> bool:
    """Tell whether a model of a list writes text, by all that lists tell."""
    if not isinstance(model, dict):
        return False
    capabilities = model.get("capabilities")
    if isinstance(capabilities, list) and capabilities:
        return "completion" in capabilities and not _name(model).startswith(PREFIX)
    name = _name(model).lower()
    family = str((model.get("details") or {}).get("family", ""))
    is_mute = any(part in name for part in _MUTE) or any(one in family for one in _MUTE_FAMILIES)
    return not is_mute and not name.startswith(PREFIX)
