"""Every knob, once: name, default, unit, meaning. Read by bootstrap and cli, handed down as values.

Each setting `name` is the environment variable `EMBEDSERVE_NAME`. An unknown `EMBEDSERVE_*`
variable is an error, so a typo never goes unnoticed.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from embedserve.errors import StartupError

PREFIX = "EMBEDSERVE_"
MIB = 1024 * 1024


def _project_folder() -> Path | None:
    """Return `./indexes` where the present folder is a project, that is, holds definitions."""
    folder = Path.cwd() / "indexes"
    return folder if folder.is_dir() and any(folder.glob("*.toml")) else None


def _default_home() -> Path:
    project = _project_folder()
    return project / "data" if project else Path.home() / ".embedserve"


class Settings(BaseSettings):
    """All settings of one server, immutable once read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    home: Path = Field(default_factory=_default_home)
    """Folder of models, catalog and vector index. `indexes/data` in a project folder (one with
    `indexes/*.toml`), else `~/.embedserve`."""
    definitions: Path | None = Field(default_factory=_project_folder)
    """Folder of index definitions (`*.toml`); `indexes` in a project folder, else none."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=11434, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    default_model: str = "all-minilm"
    """Model that is loaded at start and used by indexes that name none."""
    keep_alive_s: float = Field(default=300, le=1e9, allow_inf_nan=False)
    """Seconds that a model stays in memory unused; negative keeps it as long as there is room.
    Requests may say otherwise (`keep_alive`). The default model stays always: queries and ingestion
    need it at once."""
    models_memory_bytes: int = Field(default=0, ge=0)
    """Memory for loaded models together; those used longest ago are let go for others. 0 means half
    of what this process may use."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    """Where models run. A device that is not there is an error, never a fallback; `auto` is `cuda`
    where it works, else `cpu`."""
    threads: int = Field(default=0, ge=0)
    """Engine worker threads; 0 means one for each core this process may use."""
    micro_batch_tokens: int = Field(default=256, ge=1)
    """Tokens that one engine call carries at most (a longer text runs alone)."""
    bulk_batch_tokens: int = Field(default=1024, ge=1)
    """The same for large requests and ingestion while no small request came for two seconds."""
    small_request_tokens: int = Field(default=512, ge=1)
    """Requests up to this many tokens go ahead of larger ones and of ingestion."""
    queue_tokens: int = Field(default=4_000_000, ge=1)
    """Tokens that may wait in each lane; beyond it requests are refused."""
    queue_s: float = Field(default=120, gt=0)
    """Seconds that a request may wait for the engine, as far as can be told; more are refused."""
    worker_timeout_s: float = Field(default=60, gt=0)
    """Seconds after which an engine call that does not come back is given up."""
    request_timeout_s: float = Field(default=0, ge=0)
    """Seconds after which an embedding request is given up with 503; 0 means never. A request may
    ask for less (`X-Request-Timeout-Ms`)."""
    ready_timeout_s: float = Field(default=5, gt=0)
    """Seconds that `/ready` waits for the default model to embed its canary text."""
    cache_bytes: int = Field(default=64 * MIB, ge=0)
    """Memory for finished vectors, so that the same text is embedded once; 0 switches it off."""
    max_request_bytes: int = Field(default=64 * MIB, ge=1)
    """Bytes of one HTTP request body."""
    max_request_texts: int = Field(default=10_000, ge=1)
    """Texts in one embedding request."""
    max_text_bytes: int = Field(default=8 * MIB, ge=1)
    """Bytes of one text in an embedding request, in UTF-8."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web pages that may call besides those of this machine, separated by commas, such as
    `https://chat.example`; `*` is any."""
    ingest_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders that may be ingested, separated like PATH; sources in definitions are added."""
    ingest_jobs: int = Field(default=2, ge=1)
    """Jobs that run at once; one index never has two."""
    extract_workers: int = Field(default=2, ge=1)
    """Jailed processes that read documents."""
    extract_timeout_s: float = Field(default=60, gt=0)
    """Seconds that one file may take to be read."""
    extract_memory_bytes: int = Field(default=2048 * MIB, ge=256 * MIB)
    """Memory that one extraction process may map for a document, in bytes."""
    max_file_bytes: int = Field(default=100 * MIB, ge=1)
    """Bytes of one document; larger ones are reported as `too_large`."""
    max_text_chars: int = Field(default=50_000_000, ge=1)
    """Characters that one document may give; more is reported as `text_too_large`."""
    max_nesting: int = Field(default=200, ge=10)
    """Elements inside of each other in HTML and XML; deeper ones are reported as `too_nested`."""
    archive_members: int = Field(default=10_000, ge=1)
    """Files that one archive may hold, those of archives inside it included."""
    archive_bytes: int = Field(default=512 * MIB, ge=1)
    """Bytes that one archive may unpack to."""
    archive_ratio: int = Field(default=200, ge=1)
    """Times its own size that an archive over 4 MiB unpacked may unpack to."""
    archive_depth: int = Field(default=3, ge=1)
    """Archives inside of each other that are opened."""
    ocr_languages: str = Field(default="", pattern=r"^([A-Za-z_]+(\+[A-Za-z_]+)*)?$")
    """Languages that pages and pictures without text are read in by OCR, in Tesseract's names,
    such as `eng+deu`; empty: no OCR."""
    tessdata: Path | None = None
    """Folder of Tesseract's languages (`eng.traineddata`); by default where systems keep it."""
    chroma_url: str | None = None
    """An existing Chroma server, such as `http://chroma:8000`; without it one is started."""
    chroma_timeout_s: float = Field(default=30, gt=0)
    """Seconds that Chroma may take to start, or to answer one call."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged to standard error."""

    @field_validator("ingest_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("home", "definitions", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().resolve() if value else None


def read_settings(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read settings from `EMBEDSERVE_*`, then `overrides` (a None there means: not given).

    Raises StartupError that names the setting and says what it accepts.
    """
    _refuse_unknown(os.environ if environ is None else environ)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise StartupError(
            f"Setting `{name}` ({PREFIX}{name.upper()}): {first['msg']}; "
            f"got `{first['input']}`. See docs/operations.md for what it accepts."
        ) from error


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for variable in environ:
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            near = get_close_matches(variable.upper(), known, n=1)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            raise StartupError(f"Unknown setting `{variable}` in the environment.{guess}")
