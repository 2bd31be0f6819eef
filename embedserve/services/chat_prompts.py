"""What chat models and their users are told, in the language of the index: one TOML file for each.

The files are in `prompts/` beside this one; a folder of one's own may replace any of them.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from string import Template

from embedserve.errors import StartupError

DEFAULT = "english"

# Text -> the names that it must hold, as `$name`.
_NEEDED = {
    "passages": ("passages", "mark"),
    "no_evidence": (),
    "refusal": (),
    "alone": (),
    "found": ("index", "documents"),
    "not_found": ("index",),
    "sources": (),
}
_KNOWN = ("passages", "mark", "index", "documents", "question")


@dataclass(frozen=True)
class Prompt:
    """The texts of one language; `$index` and `$question` may stand in each."""

    passages: str
    """Before the user's question: `$passages`, between two lines with `$mark`."""
    no_evidence: str
    """The same, where nothing was found."""
    refusal: str
    """The answer where nothing was found and the index refuses."""
    alone: str
    """Before the passages, where no language model answers."""
    found: str
    """What the user sees while the model thinks; `$documents` is how many were found."""
    not_found: str
    sources: str
    """Heading of a list of sources."""

    def fill(self, text: str, **values: str) -> str:
        """Return one of the texts with its names replaced."""
        return Template(text).safe_substitute(values)


class Prompts:
    """Every language's, read once."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take files of `folder` before our own; raise StartupError for one that does not hold."""
        own = files("embedserve.services").joinpath("prompts")
        texts = {
            one.name.removesuffix(".toml"): one.read_text(encoding="utf-8")
            for one in own.iterdir()
            if one.name.endswith(".toml")
        }
        self._prompts = {name: _parse(name, text) for name, text in texts.items()}
        if folder is not None:
            self._prompts |= _read(folder)

    def of(self, language: str) -> Prompt:
        """Return the prompt of a language; the English one where there is none."""
        return self._prompts.get(language) or self._prompts[DEFAULT]


def _read(folder: Path) -> dict[str, Prompt]:
    try:
        paths = sorted(folder.glob("*.toml"))
        if not paths:
            raise StartupError(
                f"The folder of prompts `{folder}` (EMBEDSERVE_CHAT_PROMPTS) has no `*.toml`. "
                "Put one there, such as `english.toml`, or unset it."
            )
        return {path.stem: _parse(str(path), path.read_text(encoding="utf-8")) for path in paths}
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"The prompts in `{folder}` cannot be read: {error}.") from error


def _parse(origin: str, text: str) -> Prompt:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"The prompt file `{origin}` is no TOML: {error}.") from error
    names = [field.name for field in fields(Prompt)]
    wrong = sorted(set(value) ^ set(names)) + [
        name for name in names if not isinstance(value.get(name, ""), str)
    ]
    if wrong:
        raise StartupError(
            f"The prompt file `{origin}`: look at `{wrong[0]}`. It must have the texts "
            f"{', '.join(names)}, and no other keys."
        )
    _check(origin, value)
    return Prompt(**value)


def _check(origin: str, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        template = Template(text)
        there = template.get_identifiers() if template.is_valid() else None
        if there is None or not set(_NEEDED[name]) <= set(there) <= set(_KNOWN):
            raise StartupError(
                f"The prompt file `{origin}`, text `{name}`: it must hold "
                f"{' and '.join(f'`${one}`' for one in _NEEDED[name]) or 'no certain name'}, may "
                f"hold {', '.join(f'`${one}`' for one in _KNOWN)}, and writes a dollar as `$$`."
            )
