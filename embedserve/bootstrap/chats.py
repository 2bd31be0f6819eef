"""Settings to who answers from indexes: the upstreams, and what they are told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from embedserve.errors import StartupError
from embedserve.services.chat import ChatOptions
from embedserve.services.chat_prompts import Prompts
from embedserve.services.upstream_link import UpstreamAddress
from embedserve.services.upstreams import Upstreams
from embedserve.setting_values import plain_url
from embedserve.settings import PREFIX, Settings

OLLAMA = "ollama"
"""What EMBEDSERVE_UPSTREAM is called among the upstreams."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class Chats:
    """Who answers, and how."""

    upstreams: Upstreams
    options: ChatOptions


def open_chats(settings: Settings, *, keeps_keys: bool) -> Chats:
    """Return them; raise StartupError for a setting that does not hold."""
    options = ChatOptions(
        Prompts(settings.chat_prompts),
        settings.chat_model,
        settings.chat_listed_models,
    )
    return Chats(open_upstreams(settings, keeps_keys=keeps_keys), options)


def open_upstreams(settings: Settings, *, keeps_keys: bool) -> Upstreams:
    """Return the servers that answer for us: EMBEDSERVE_UPSTREAM, then EMBEDSERVE_CHAT_UPSTREAMS.

    `keeps_keys`: callers send keys of ours. Raises StartupError for an entry that is none.
    """
    addresses = []
    if settings.upstream is not None:
        addresses.append(_address(settings, OLLAMA, settings.upstream, keeps_keys=keeps_keys))
    keys = _named_keys(settings)
    for name, url in _named(settings.chat_upstreams, "chat_upstreams"):
        # What a caller sends is never meant for a server that others run.
        address = _address(settings, name, url, keeps_keys=True)
        key = keys.pop(name, "")
        addresses.append(replace(address, setting=f"{PREFIX}CHAT_UPSTREAMS", key=key))
    names = [one.name for one in addresses]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise StartupError(
            f"Setting `chat_upstreams`: the name `{twice}` is taken twice"
            f"{' (EMBEDSERVE_UPSTREAM has it)' if twice == OLLAMA else ''}. Choose another."
        )
    if keys:
        raise StartupError(
            f"Setting `chat_upstream_keys` has a key for `{next(iter(keys))}`, which is not among "
            "the names of `chat_upstreams`. Correct one of the two."
        )
    return Upstreams(addresses)


def _address(settings: Settings, name: str, url: str, *, keeps_keys: bool) -> UpstreamAddress:
    return UpstreamAddress(
        url,
        name,
        connect_timeout_s=settings.upstream_connect_timeout_s,
        timeout_s=settings.upstream_timeout_s,
        list_timeout_s=settings.upstream_list_timeout_s,
        keeps_keys=keeps_keys,
    )


def _named(entries: Sequence[str], setting: str) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(entries, start=1):
        name, _, url = entry.partition("=")
        try:
            if not _NAME.fullmatch(name.strip()):
                raise ValueError("write NAME=URL, with a name of letters, digits, `.`, `_`, `-`")
            yield name.strip(), plain_url(url.strip())
        except ValueError as error:
            raise StartupError(
                f"Setting `{setting}` ({PREFIX}{setting.upper()}), entry {number}: {error}."
            ) from error


def _named_keys(settings: Settings) -> dict[str, str]:
    """Return the keys by the name of their server; raise StartupError, which repeats no key."""
    if settings.chat_upstream_keys is None:
        return {}
    found = {}
    for number, entry in enumerate(settings.chat_upstream_keys.get_secret_value().split(","), 1):
        name, equals, key = entry.strip().partition("=")
        if not equals or not key.strip().isascii() or not key.strip().isprintable():
            raise StartupError(
                f"Setting `chat_upstream_keys`, entry {number}: write NAME=KEY, with the name of "
                "an entry of `chat_upstreams`."
            )
        found[name.strip()] = key.strip()
    return found
