"""`embedserve serve`: the server itself."""

import gc
import logging
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from embedserve.bootstrap.address import is_loopback, listen, url_of
from embedserve.bootstrap.house import House, open_house
from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Home
from embedserve.cli.console import output
from embedserve.cli.http_protocol import PlainHttp
from embedserve.services.viewing import OWNER, acting_as
from embedserve.settings import Settings

if sys.platform != "win32":
    import resource

REFRESH_S = 60
"""Seconds that the introduction waits for the first ingestion."""
OPEN_FILES = 65_536
"""Files, connections among them, that the server asks the system for at most."""
GC_OBJECTS = 20_000
"""New objects after which the garbage collector looks through them; 700 by default."""

OPEN_TO_ALL = (
    "whoever reaches this address may embed, read and delete indexes, and remove models: set "
    "EMBEDSERVE_API_KEYS, or put a proxy in front that asks who calls"
)

EXAMPLES = """
Try it:
  curl {url}/api/embeddings -d '{{"model": "{model}", "prompt": "Your text here"}}'
  curl {url}/indexes/{name}/ingest -d '{{"path": "{folder}"}}'
  curl {url}/indexes/{name}/query -d '{{"query": "How do I change the port?", "k": 3}}'
"""

logger = logging.getLogger("embedserve")


def serve(  # noqa: PLR0913  one parameter an option
    home: Home = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [127.0.0.1]", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on. [11434]", show_default=False)
    ] = None,
    allow: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that may be ingested; repeat for several.", show_default=False),
    ] = None,
    chroma_url: Annotated[
        str | None,
        typer.Option(help="An existing Chroma server instead of an own one.", show_default=False),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            help="An Ollama that gets what is not served here, such as http://127.0.0.1:11435.",
            show_default=False,
        ),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ingest the sources of every definition at start.")
    ] = False,
) -> None:
    """Serve the API until interrupted. Every other setting is an EMBEDSERVE_* variable."""
    reading = read_all(
        {
            "home": home,
            "host": host,
            "port": port,
            "chroma_url": chroma_url,
            "upstream": upstream,
        }
    )
    settings = reading.settings
    if allow:
        roots = (*settings.ingest_roots, *allow)
        settings = settings.model_copy(update={"ingest_roots": roots})
    _set_up_logging(settings.log_level)
    for variable, reason in reading.ignored.items():
        logger.warning("%s is ignored: %s", variable, reason)
    _allow_connections()
    _serve(settings, refresh=refresh)


def _serve(settings: Settings, *, refresh: bool) -> None:
    # uvicorn raises the signal again once it has shut down; the default action would end the
    # process before the parts below it are stopped.
    signal.signal(signal.SIGTERM, _exit_in_order)
    signal.signal(signal.SIGINT, _exit_in_order)
    with (
        listen(settings.host, settings.port) as listener,
        open_house(settings, watches=True) as house,
    ):
        url = url_of(listener)
        house.lock.announce(url)
        logger.info("home %s", settings.home)
        logger.info("serving at %s (interrupt to stop)", url)
        if not (is_loopback(settings.host) or settings.api_keys or settings.api_keys_file):
            logger.warning("%s", OPEN_TO_ALL)
        introduction = threading.Thread(
            target=_introduce, args=(house, settings, url), kwargs={"refresh": refresh}, daemon=True
        )
        introduction.start()
        config = uvicorn.Config(
            house.app,
            http=PlainHttp,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=settings.drain_s,
            server_header=False,
        )
        _spare_collections()
        try:
            _Server(config, house).run(sockets=[listener])
        except SystemExit:
            logger.info("stopping")


class _Server(uvicorn.Server):
    """uvicorn's server, which tells the house at once when it is asked to stop.

    Who follows a job is let go then; else the connection would be waited for as long as it may.
    """

    def __init__(self, config: uvicorn.Config, house: House) -> None:
        super().__init__(config)
        self._house = house

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close connections in order; called by uvicorn."""
        self._house.services.ingestion.begin_to_stop()
        await super().shutdown(sockets)


def _introduce(house: House, settings: Settings, url: str, *, refresh: bool) -> None:
    """Refresh the indexes that have sources, then print calls that work when pasted."""
    with acting_as(OWNER):
        _introduce_as_owner(house, settings, url, refresh=refresh)


def _introduce_as_owner(house: House, settings: Settings, url: str, *, refresh: bool) -> None:
    indexes, ingestion = house.services.indexes, house.services.ingestion
    sources = {
        name: found[0].path
        for name in indexes.names()
        if (found := indexes.describe(name).definition.sources)
    }
    jobs = [ingestion.submit(name, None) for name in sources] if refresh else []
    deadline = time.monotonic() + REFRESH_S
    while any(ingestion.job(job.id).status in ("queued", "running") for job in jobs):
        if time.monotonic() > deadline:
            logger.info("ingestion goes on in the background: `embedserve jobs list`")
            break
        time.sleep(0.1)  # jobs are rows in the catalog; they give no event to wait for
    name, folder = next(iter(sources.items()), ("NAME", "/path/to/documents"))
    model = settings.default_model
    output.print(EXAMPLES.format(url=url, model=model, name=name, folder=folder))


def _spare_collections() -> None:
    """Let the garbage collector look at what requests leave, not at all that was loaded before.

    With a threshold for requests instead of scripts: with 32 clients it took 7 % of the event loop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)


def _exit_in_order(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _allow_connections() -> None:
    """Raise this process's limit of open files as far as the system lets it.

    Most systems give 1,024 to who does not ask for more, and the event loop (libuv) closes the
    connections beyond that without an answer.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        logger.warning("no more than %d connections at once: %s", soft, error)


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Their lines repeat what ours say, once for every request.
    for name in ("httpx", "httpcore", "chromadb", "uvicorn", "mcp"):
        logging.getLogger(name).setLevel(logging.WARNING)
