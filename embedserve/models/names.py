"""Model names: `[scheme://][host/][namespace/]model[:tag]`, the grammar of Ollama.

Says nothing about whether a model of that name exists.
"""

import re
from dataclasses import dataclass

from embedserve.errors import InvalidNameError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
HUB_HOST = "hf.co"
_HOST_SYNONYMS = {"huggingface.co": HUB_HOST}

RECIPES = ("int8-precise", "int8-dynamic", "int8", "int4", "bf16", "fp16-tensorrt", "fp16", "fp32")
"""Precisions that a tag may end in; a longer name goes before its beginning."""

# The first character rules out `.`, `..` and options, so every part is also a safe folder name.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True)
class ModelName:
    """A complete name; defaults are filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def display(self) -> str:
        """The shortest spelling with its tag: `all-minilm:latest`, `hf.co/org/repo:latest`."""
        parts = [self.model]
        if self.host != DEFAULT_HOST:
            parts = [self.host, self.namespace, self.model]
        elif self.namespace != DEFAULT_NAMESPACE:
            parts = [self.namespace, self.model]
        return "/".join(parts) + ":" + self.tag

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two spellings of one name share: names compare without regard to case."""
        return (
            self.host.lower(),
            self.namespace.lower(),
            self.model.lower(),
            self.tag.lower(),
        )


def parse_name(text: str) -> ModelName:
    """Read a name and fill in its defaults; raise InvalidNameError outside the grammar."""
    _, separator, rest = text.strip().partition("://")
    path = rest if separator else text.strip()
    *leading, last = path.split("/")
    model, colon, tag = last.partition(":")
    if not colon:
        tag = DEFAULT_TAG
    if len(leading) > 2:
        raise InvalidNameError("invalid model name")
    host, namespace = [DEFAULT_HOST, DEFAULT_NAMESPACE][: 2 - len(leading)] + leading
    grammar = ((_HOST, host), (_NAMESPACE, namespace), (_MODEL, model), (_MODEL, tag))
    if not all(pattern.fullmatch(part) for pattern, part in grammar):
        raise InvalidNameError("invalid model name")
    return ModelName(_HOST_SYNONYMS.get(host.lower(), host), namespace, model, tag)


def split_recipe(tag: str) -> tuple[str, str | None]:
    """Take the precision off the end of a tag: `22m-int8` is (`22m`, `int8`).

    A tag that is nothing but a precision means `latest` in that precision; one without any keeps
    None, and letter case does not matter.
    """
    folded = tag.lower()
    for recipe in RECIPES:
        if folded == recipe:
            return DEFAULT_TAG, recipe
        if folded.endswith(f"-{recipe}"):
            return tag[: -len(recipe) - 1], recipe
    return tag, None
