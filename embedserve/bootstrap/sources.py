"""Where settings are from: options, `EMBEDSERVE_*`, Ollama's variables, defaults, in this order."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from embedserve.bootstrap.ollama_environment import OllamaEnvironment, read_ollama
from embedserve.settings import PREFIX, Settings, read_settings

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class Reading:
    """Settings, and where each is from."""

    settings: Settings
    origins: dict[str, str]
    """By setting: `default`, `option`, or `environment` and the variable."""
    ignored: dict[str, str]
    """By variable of Ollama: why it, or a part of it, has no effect."""


@dataclass(frozen=True)
class ShownSetting:
    """A setting as it may be printed: secrets are masked."""

    name: str
    value: str | None
    origin: str


def read_all(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Reading:
    """Read every source; raises what `settings.read_settings` raises."""
    variables = os.environ if environ is None else environ
    ollama = read_ollama(variables)
    options = {name for name, value in (overrides or {}).items() if value is not None}
    own = {name.upper() for name in variables}
    origins, ignored = {}, dict(ollama.ignored)
    for name in Settings.model_fields:
        origin = _origin(name, options, own, ollama)
        if name in ollama.variables and ollama.variables[name] not in origin:
            ignored.setdefault(ollama.variables[name], f"`{name}` is from: {origin}")
        origins[name] = origin
    settings = read_settings(overrides, variables, ollama.values)
    return Reading(settings, origins, ignored)


def shown(reading: Reading) -> list[ShownSetting]:
    """List every setting as it may be printed."""
    return [
        ShownSetting(name, _shown(getattr(reading.settings, name)), origin)
        for name, origin in reading.origins.items()
    ]


def _origin(name: str, options: set[str], own: set[str], ollama: OllamaEnvironment) -> str:
    if name in options:
        return "option"
    if PREFIX + name.upper() in own:
        return f"environment {PREFIX}{name.upper()}"
    return f"environment {ollama.variables[name]}" if name in ollama.variables else "default"


def _shown(value: object) -> str | None:
    if value is None or isinstance(value, SecretStr):
        return None if value is None else "********"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return _PASSWORD.sub("********", text)
