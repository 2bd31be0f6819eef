"""Models made from installed ones with other parameters: `POST /api/create` of Ollama.

Such a model is installed like any other, its files shared on the disk, so everything that names
models can name it. It exports nothing and measures nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from embedserve.errors import InvalidRequestError
from embedserve.models import installed
from embedserve.models.installed import InstalledModel
from embedserve.models.manifest import Manifest
from embedserve.types import InputType

PARAMETERS = ("num_ctx", "query_prompt", "document_prompt", "input_type")
MOST_PROMPT_CHARS = 2_000
"""It goes in front of every text; the longest that models are published with have some hundreds."""
LEAST_TOKENS = 64
"""The canary's text must fit, or the model could not be checked when it is loaded."""


@dataclass(frozen=True)
class DerivedModel:
    """A model that was made, and what of the request had no effect."""

    model: InstalledModel
    warnings: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """sha256 of each of its files."""
        return tuple(file.sha256 for file in self.model.manifest.files.values())


def derive_model(
    models_folder: Path, source: str, target: str, parameters: Mapping[str, Any]
) -> DerivedModel:
    """Install `source` as `target` with other parameters.

    Raises InvalidRequestError for a parameter of the wrong kind, and see `installed.derive`.
    """
    origin = installed.resolve(models_folder, source)
    warnings = _warnings(origin, parameters)

    def change(manifest: Manifest) -> Manifest:
        return replace(
            manifest,
            parent=origin.name.display,
            max_tokens=_max_tokens(manifest, parameters),
            query_prompt=_prompt(parameters, "query_prompt", manifest.query_prompt),
            document_prompt=_prompt(parameters, "document_prompt", manifest.document_prompt),
            input_type=_input_type(manifest, parameters),
            created_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        )

    change(origin.manifest)  # refused before anything is locked
    return DerivedModel(installed.derive(models_folder, source, target, change), warnings)


def _warnings(origin: InstalledModel, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = [name for name in parameters if name not in PARAMETERS]
    warnings = []
    if unknown:
        named = ", ".join(f"`{name}`" for name in unknown)
        known = ", ".join(f"`{name}`" for name in PARAMETERS)
        warnings.append(f"no effect on embeddings: {named}; these have one: {known}")
    longest, asked = origin.manifest.max_tokens, parameters.get("num_ctx")
    if isinstance(asked, int) and asked > longest:
        warnings.append(f"num_ctx stays at {longest}, the length of `{origin.name.display}`")
    return tuple(warnings)


def _max_tokens(manifest: Manifest, parameters: Mapping[str, Any]) -> int:
    value = parameters.get("num_ctx")
    if value is None:
        return manifest.max_tokens
    if isinstance(value, bool) or not isinstance(value, int) or value < LEAST_TOKENS:
        raise InvalidRequestError(
            f"parameter `num_ctx` must be a whole number from {LEAST_TOKENS} on, not `{value}`; "
            "requests may ask for fewer in `options`"
        )
    return min(value, manifest.max_tokens)


def _prompt(parameters: Mapping[str, Any], name: str, former: str) -> str:
    prompt = _text(parameters, name, former)
    if name in parameters and len(prompt) > MOST_PROMPT_CHARS:
        raise InvalidRequestError(
            f"parameter `{name}` has {len(prompt)} characters; {MOST_PROMPT_CHARS} are "
            "allowed, since it goes in front of every text and takes its room; shorten it"
        )
    return prompt


def _text(parameters: Mapping[str, Any], name: str, former: str) -> str:
    value = parameters.get(name)
    if value is None:
        return former
    if not isinstance(value, str):
        raise InvalidRequestError(f"parameter `{name}` must be a string, not `{value}`")
    return value


def _input_type(manifest: Manifest, parameters: Mapping[str, Any]) -> InputType | None:
    value = _text(parameters, "input_type", manifest.input_type or "")
    if value not in ("", "query", "document"):
        raise InvalidRequestError(
            f"parameter `input_type` must be `query` or `document`, not `{value}`"
        )
    return cast(InputType, value) if value else None
