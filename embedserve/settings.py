"""Every knob, once: name, default, unit, meaning. Read by bootstrap and cli, handed down as values.

Each setting `name` is the environment variable `EMBEDSERVE_NAME`. An unknown `EMBEDSERVE_*`
variable is an error, so a typo never goes unnoticed.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from embedserve.errors import StartupError
from embedserve.setting_values import absolute, plain_url, split_commas, split_paths, with_schemes
from embedserve.types import BatchTokens

PREFIX = "EMBEDSERVE_"
SECRETS = (
    *("api_keys", "api_key", "librechat_secret", "user_token_secret", "public_url"),
    *("upstream", "chat_upstreams", "chat_upstream_keys"),
)
"""Settings whose values are not repeated in errors: keys, and URLs that may hold a password."""
MIB = 1024 * 1024

OwnPath = Annotated[Path, AfterValidator(absolute)]
PlainUrl = Annotated[str, AfterValidator(plain_url)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split_paths)]


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

    home: OwnPath = Field(default_factory=_default_home)
    """Folder of models, catalog and vector index. `indexes/data` in a project folder (one with
    `indexes/*.toml`), else `~/.embedserve`."""
    definitions: OwnPath | None = Field(default_factory=_project_folder)
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
    max_loaded_models: int = Field(default=0, ge=0)
    """Models in memory at once besides the default one; those used longest ago are let go for
    others. 0 means as many as have room."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    """Where models run. A device that is not there is an error, never a fallback; `auto` is `cuda`
    where it works, else `cpu`."""
    threads: int = Field(default=0, ge=0)
    """Engine worker threads; 0 means one for each core this process may use."""
    alone_threads: int = Field(default=1, ge=0)
    """Threads for a text that is alone in the engine; 0 means one for each core. More than 1 loads
    each model twice."""
    search_threads: int = Field(default=0, ge=0)
    """Queries that are worked on at once, others wait; 0 means one more than there are cores."""
    micro_batch_tokens: int = Field(default=BatchTokens.usual, ge=1)
    """Tokens that one engine call carries at most (a longer text runs alone)."""
    bulk_batch_tokens: int = Field(default=BatchTokens.bulk, ge=1)
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
    """Seconds after which an embedding request, or a query, is given up with 503; 0 means never. A
    request may ask for less (`X-Request-Timeout-Ms`)."""
    drain_s: int = Field(default=10, ge=1)
    """Seconds that requests get to end when the server is told to stop; then they are refused."""
    ready_timeout_s: float = Field(default=5, gt=0)
    """Seconds that `/ready` waits for the default model to embed its canary text."""
    cache_bytes: int = Field(default=64 * MIB, ge=0)
    """Memory for finished vectors, so that the same text is embedded once; 0 switches it off."""
    max_requests: int = Field(default=0, ge=0)
    """Requests that are worked on or wait at once (probes and other GET requests do not count);
    more are refused with 503. 0 means no limit."""
    max_request_bytes: int = Field(default=64 * MIB, ge=1)
    """Bytes of one HTTP request body."""
    max_request_texts: int = Field(default=10_000, ge=1)
    """Texts in one embedding request."""
    max_upload_bytes: int = Field(default=1024 * MIB, ge=1)
    """Bytes of all documents of one request to an index; of each: EMBEDSERVE_MAX_FILE_BYTES."""
    max_upload_files: int = Field(default=1000, ge=1)
    """Documents that one request may send."""
    max_original_bytes: int = Field(default=100 * MIB, ge=0)
    """Bytes of an original file that the page of its document offers to whoever may see that page;
    0: none is offered."""
    max_metadata_bytes: int = Field(default=16_384, ge=2)
    """Bytes of the metadata that a document may carry, as JSON."""
    upload_wait_s: float = Field(default=60, gt=0)
    """Seconds that a request with `?wait=true` waits for its job; then it is answered without."""
    max_archive_bytes: int = Field(default=16384 * MIB, ge=1)
    """Bytes of an index's archive that is imported, packed and unpacked."""
    max_text_bytes: int = Field(default=8 * MIB, ge=1)
    """Bytes of one text in an embedding request, in UTF-8."""
    allowed_origins: Annotated[Words, AfterValidator(with_schemes)] = ()
    """Web pages that may call besides those of this machine, separated by commas, such as
    `https://chat.example` or `https://*.example:*`; `*` alone is any."""
    api_keys: SecretStr | None = None
    """Keys of which callers must send one, as `scope:key` separated by commas; scopes are `read`,
    `ingest`, `admin`, or several such as `read+ingest`. Without keys everybody may do all."""
    api_keys_file: OwnPath | None = None
    """File with such keys, one a line; lines with `#` are comments. Both settings may be used."""
    api_key: SecretStr | None = None
    """Key that the commands send to the running server."""
    librechat_secret: SecretStr | None = None
    """`JWT_SECRET` of a LibreChat that keeps its files here, at `/librechat`; none: not served."""
    librechat_index: str = "librechat"
    """Index that these files go to; made with the first of them."""
    user_token_secret: SecretStr | None = None
    """Secret with which a front end signs who its user is (JWT, HS256), such as Open WebUI's
    `FORWARD_USER_INFO_HEADER_JWT_SECRET`; none: no token is read. See docs/operations.md."""
    user_token_header: str = Field(default="X-OpenWebUI-User-Jwt", pattern=r"^[A-Za-z0-9-]{1,100}$")
    """Header that such a token comes in."""
    user_token_leeway_s: float = Field(default=10, ge=0, le=300)
    """Seconds that the clock of whoever signs may differ."""
    signed_link_s: int = Field(default=3600, ge=0, le=604_800)
    """Seconds that a link to a document of an index with access rules opens it for whoever has the
    link, given to a user who may see it; 0: no link opens it without a token."""
    upstream: PlainUrl | None = None
    """An Ollama, such as `http://127.0.0.1:11435`, that gets what is not served here: generation,
    and models that are not installed here. Its models are listed beside ours."""
    upstream_connect_timeout_s: float = Field(default=5, gt=0)
    """Seconds that the upstream may take to accept a connection."""
    upstream_timeout_s: float = Field(default=600, gt=0)
    """Seconds of silence from the upstream, loading a model included, after which a request is
    given up."""
    upstream_list_timeout_s: float = Field(default=3, gt=0)
    """Seconds that lists of models wait for the upstream's part."""
    chat_upstreams: Words = ()
    """Servers whose models answer from indexes (`rag/INDEX`), as `NAME=URL` separated by commas. A
    URL with a path, such as `https://api.example/v1`, is the base of OpenAI's API, one without is
    an Ollama. EMBEDSERVE_UPSTREAM is one of them, under the name `ollama`."""
    chat_upstream_keys: SecretStr | None = None
    """API keys of those servers, as `NAME=KEY` separated by commas."""
    chat_model: str = ""
    """Model of an upstream that answers as `rag/INDEX` where the index names none; empty: the first
    that the first upstream lists."""
    chat_listed_models: int = Field(default=20, ge=0)
    """Models of the upstreams that lists show with each index, as `rag/INDEX@MODEL`."""
    chat_prompts: OwnPath | None = None
    """Folder of prompt files (`english.toml`) that replace those of embedserve."""
    public_url: PlainUrl | None = None
    """Where browsers reach this server, such as `https://docs.example`: links in answers begin with
    it. Without it, with the address that the request was sent to."""
    ingest_roots: Paths = ()
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
    """Bytes of one document; larger ones are reported as `too_large`. For plain text, Markdown,
    source code, logs, JSON Lines, CSV and TSV EMBEDSERVE_MAX_STREAM_BYTES is the limit."""
    max_text_chars: int = Field(default=50_000_000, ge=1)
    """Characters that one document may give; more is reported as `text_too_large`."""
    max_stream_bytes: int = Field(default=2048 * MIB, ge=1)
    """Bytes of one text in a folder; larger ones are reported as `too_large`. They need no memory,
    but time: see docs/performance.md."""
    stream_above_bytes: int = Field(default=8 * MIB, ge=1)
    """Bytes above which a text is read, cut and embedded piece by piece."""
    max_source_files: int = Field(default=1_000_000, ge=1)
    """Files that one ingestion job takes from its folders; a job that finds more stops there, says
    so and deletes nothing. Each costs half a kilobyte of memory while the job runs."""
    fetch_private: bool = False
    """Whether sources may name addresses of this machine and its networks, not only public ones."""
    fetch_timeout_s: float = Field(default=60, gt=0)
    """Seconds that one address may take to be fetched, redirects included."""
    fetch_delay_s: float = Field(default=0.5, ge=0)
    """Seconds between two requests to one host."""
    fetch_max_urls: int = Field(default=10_000, ge=1)
    """Addresses that the sources of one index may list."""
    watch_settle_s: float = Field(default=2, gt=0)
    """Seconds that changed files must have kept size and time before a watch ingests them."""
    watch_rescan_s: float = Field(default=3600, ge=0)
    """Seconds between two rescans of the sources of a watched index, addresses included; 0 means
    never."""
    watch_fallback_s: float = Field(default=60, gt=0)
    """The same while the system refuses to watch its folders."""
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
    recall_share: float = Field(default=0.01, ge=0, le=1)
    """Share of queries after which the vector index is compared with the exact answer, in the
    background and 0.2 % of the time at most, for the metrics; 0: none."""
    chroma_url: str | None = None
    """An existing Chroma server, such as `http://chroma:8000`; without it one is started."""
    chroma_timeout_s: float = Field(default=30, gt=0)
    """Seconds that Chroma may take to start, or to answer one call; requests wait 5 at most."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged to standard error."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the arguments alone: `read_settings` says where from, and in which order."""
        return (init_settings,)


def read_settings(
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings: from `overrides` (None there: not given), `EMBEDSERVE_*`, then `fallbacks`.

    Raises StartupError that names the setting and says what it accepts.
    """
    variables = os.environ if environ is None else environ
    _refuse_unknown(variables)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return Settings(**{**(fallbacks or {}), **_from_environment(variables), **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        # What was meant as a secret is repeated nowhere; a URL may hold one.
        got = "" if name in SECRETS else f"; got `{first['input']}`"
        raise StartupError(
            f"Setting `{name}` ({PREFIX}{name.upper()}): {first['msg']}{got}. "
            "See docs/operations.md for what it accepts."
        ) from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    return source()


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for variable in environ:
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            near = get_close_matches(variable.upper(), known, n=1)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            raise StartupError(f"Unknown setting `{variable}` in the environment.{guess}")
