"""What an index is made of, as users write it: a TOML file in `indexes/`, or a request body."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from embedserve.errors import DefinitionError, InvalidNameError, InvalidRequestError
from embedserve.services.filters import parse_filter
from embedserve.services.search_request import MAX_K, MAX_PASSAGE_TOKENS, Fusion, Mode
from embedserve.store.words import DEFAULT_LANGUAGE, LANGUAGES
from embedserve.types import Index

DEFAULT_CHUNK_TOKENS = 128
"""Best of 64 to 800 in recall at a fixed token budget (Chroma's chunking evaluation set)."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class Table(BaseModel):
    """A table of the definition; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Chunking(Table):
    """How documents are cut."""

    max_tokens: int | None = Field(default=None, ge=16, le=8192)
    """Tokens of the index's own model that one chunk holds at most, title and headings aside.
    128 where it is missing, or what the model can take."""


class Source(Table):
    """What feeds the index: a folder or file, addresses of the web, or a sitemap of them."""

    path: str = ""
    """Of a folder or file: absolute, or relative to the folder of the definition."""
    urls: tuple[str, ...] = Field(default=(), strict=False)
    """Addresses to fetch, `http` or `https`."""
    sitemap: str = ""
    """Address of a sitemap, or of an index of sitemaps, whose addresses are fetched."""
    include: tuple[str, ...] = Field(default=(), strict=False)
    """Globs of files to take; none means every file."""
    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """Globs of files to leave out, in `.gitignore` syntax."""

    @model_validator(mode="after")
    def _need_one_kind(self) -> "Source":
        if [bool(self.path), bool(self.urls), bool(self.sitemap)].count(True) != 1:
            raise ValueError("a source has one of `path`, `urls` and `sitemap`")
        for url in filter(None, (*self.urls, self.sitemap)):
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"address `{url[:100]}` must begin with http:// or https://")
        if not self.path and (self.include or self.exclude):
            raise ValueError("`include` and `exclude` are for folders")
        return self


class SearchDefaults(Table):
    """What a query uses where it does not say."""

    k: int = Field(default=5, ge=1, le=MAX_K)
    """Passages to return."""
    mode: Mode = "hybrid"
    """By vectors and by words, or by one of them alone."""
    fusion: Fusion = "sureness"
    """How the two are made one order."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Hits of a smaller score are left out; none where it is missing."""
    passage_tokens: int = Field(default=300, ge=0, le=MAX_PASSAGE_TOKENS)
    """How far a hit is joined with its neighbours, about; 0: not at all."""


class Chat(Table):
    """How the chat model `rag/INDEX` answers."""

    model: str = ""
    """Model of an upstream that writes the answers where none is named; empty:
    EMBEDSERVE_CHAT_MODEL."""
    min_score: float = Field(default=0.05, ge=0, le=1)
    """Passages of a smaller score are no evidence and are left out."""
    refuse: bool = False
    """Whether a question without evidence is refused instead of put to the model."""
    language: str = ""
    """Whose prompt file is used; empty: that of the index."""


class AccessRule(Table):
    """A document is a user's whose claim is in its field, by itself or one of a list."""

    claim: str = Field(min_length=1, max_length=100)
    """Of the user's token, such as `email`; it may be a list."""
    field: str = Field(min_length=1, max_length=100)
    """Of the document's metadata; it may be a list too."""


class Access(Table):
    """Who may see which documents; with this table an index is protected."""

    rules: tuple[AccessRule, ...] = Field(default=(), max_length=16, strict=False)
    match: Literal["any", "all"] = "any"
    """Whether one of the rules is enough, or all are needed."""
    public: dict[str, Any] | None = None
    """A filter: documents that everybody may see."""

    @model_validator(mode="after")
    def _say_something(self) -> "Access":
        if not self.rules and not self.public:
            raise ValueError("give `rules`, or a filter as `public`: nobody could see anything")
        if self.public is not None:
            if not self.public:
                raise ValueError("`public` is empty; for an index that is open leave `access` out")
            try:
                parse_filter(self.public)
            except InvalidRequestError as error:
                raise ValueError(f"`public`: {error.message}") from error
        return self


class IndexDefinition(Table):
    """One index. Every key has a default, so an empty file is a valid definition."""

    description: str = ""
    metadata: dict[str, str] = Field(default={}, max_length=16)
    """What its owner notes of it."""
    model: str | None = None
    """Installed embedding model; the server's default model where it is missing."""
    chunking: Chunking = Chunking()
    search: SearchDefaults = SearchDefaults()
    chat: Chat = Chat()
    access: Access | None = None
    """None: whoever may call sees every document."""
    language: str = DEFAULT_LANGUAGE
    """That full-text search takes word forms of as one; `none`: each form for itself."""
    sources: tuple[Source, ...] = Field(default=(), strict=False)
    watch: bool = False
    """Whether the server ingests by itself what changes in the sources."""

    @field_validator("language")
    @classmethod
    def _be_known(cls, language: str) -> str:
        if language not in LANGUAGES:
            raise ValueError(f"`{language[:50]}` is not one of {', '.join(LANGUAGES)}")
        return language


def parse_definition(value: Mapping[str, Any], *, origin: str) -> IndexDefinition:
    """Check a definition; raise DefinitionError that names the key at fault and `origin`."""
    try:
        return IndexDefinition.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise DefinitionError(f"{origin}: {_unknown_key(first['loc'])}") from error
        raise DefinitionError(f"{origin}: key `{key}`: {first['msg']}.") from error


def read_definitions(folder: Path) -> dict[str, IndexDefinition]:
    """Read every `*.toml` in `folder`; the file's name is the index's name.

    Relative source paths become absolute, counted from `folder`.
    """
    return {path.stem: read_definition(path) for path in sorted(folder.glob("*.toml"))}


def read_definition(path: Path) -> IndexDefinition:
    """Read one definition file; raise DefinitionError for bad TOML, keys or values."""
    check_index_name(path.stem)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"`{path}` is not valid TOML: {error}") from error
    except OSError as error:
        raise DefinitionError(f"`{path}` cannot be read: {error.strerror}.") from error
    definition = parse_definition(value, origin=f"`{path}`")
    return resolve_sources(definition, path.parent)


def resolve_sources(definition: IndexDefinition, base: Path) -> IndexDefinition:
    """Return the definition with every source path absolute, counted from `base`."""
    sources = tuple(
        source.model_copy(update={"path": str((base / Path(source.path).expanduser()).resolve())})
        if source.path
        else source
        for source in definition.sources
    )
    return definition.model_copy(update={"sources": sources})


def check_index_name(name: str) -> str:
    """Return `name`, or raise InvalidNameError that says what a name may hold."""
    if not NAME.fullmatch(name):
        raise InvalidNameError(
            f"Index name `{name[:100]}` is not valid: use 1 to 80 letters, digits, `.`, `_` or "
            "`-`, beginning with a letter or digit."
        )
    return name


def definition_of(index: Index) -> IndexDefinition:
    """Return the definition that an index has."""
    return stored_definition(index.definition)


@lru_cache(maxsize=256)  # every read of an index asks for its access rules
def stored_definition(stored: str) -> IndexDefinition:
    """Return a definition that the catalog holds as JSON."""
    return IndexDefinition.model_validate_json(stored)


def _unknown_key(location: tuple[int | str, ...]) -> str:
    """Say which key is unknown, and which one of the same table was probably meant."""
    tables: dict[str, type[Table]] = {
        "chunking": Chunking,
        "search": SearchDefaults,
        "chat": Chat,
        "access": Access,
        "sources": Source,
    }
    table = tables[str(location[0])] if len(location) > 1 else IndexDefinition
    table = AccessRule if location[:2] == ("access", "rules") and len(location) > 2 else table
    key = str(location[-1])
    near = get_close_matches(key, table.model_fields, n=1, cutoff=0.5)
    guess = f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(table.model_fields)}."
    return f"unknown key `{'.'.join(str(part) for part in location)}`. {guess}"
