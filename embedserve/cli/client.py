"""How commands reach the house: over HTTP, whoever owns the home.

While a server runs on the home, commands talk to it. Otherwise the house is opened in this very
process for the length of the command, behind a loopback port of its own: one path for both.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import typer
import uvicorn

from embedserve.bootstrap import listen, open_house, url_of
from embedserve.errors import EmbedserveError, NotFoundError, StartupError
from embedserve.settings import read_settings
from embedserve.store.home_lock import HomeLockedError, owner_of

# A query may wait for a model to load, a job for its index; neither takes longer than this.
TIMEOUT_S = 300.0

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Folder of models, catalog and vector index. [EMBEDSERVE_HOME; indexes/data in a "
        "project folder, else ~/.embedserve]",
        show_default=False,
    ),
]
Json = dict[str, Any]


class Client:
    """Call the API; an error status becomes the error that the server named."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **query: str | int | list[str]) -> Json:
        """GET a JSON object."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Json | None = None) -> Json:
        """POST a JSON object and return the reply."""
        return self._call("POST", path, json=body or {})

    def put(self, path: str, body: Json) -> Json:
        """PUT a JSON object and return the reply."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str, body: Json | None = None) -> Json:
        """DELETE, with a body where the API wants one."""
        return self._call("DELETE", path, json=body)

    def lines(self, path: str, body: Json) -> Iterator[Json]:
        """POST, and give each line of the streamed reply."""
        with self._http.stream("POST", path, json=body, timeout=None) as reply:
            if reply.is_error:
                reply.read()
                _raise(reply)
            for line in reply.iter_lines():
                yield cast(Json, httpx.Response(200, text=line).json())

    def _call(self, method: str, path: str, **options: Any) -> Json:  # noqa: ANN401
        try:
            reply = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise EmbedserveError(
                f"The server at {self._http.base_url} did not answer: {error}. "
                "Look at its log, or start it again."
            ) from error
        if reply.is_error:
            _raise(reply)
        return cast(Json, reply.json()) if reply.content else {}


@contextmanager
def connect(home: Path | None, *, roots: tuple[Path, ...] = ()) -> Iterator[Client]:
    """Give a client of the home's server, or of a house opened for this command.

    `roots` are folders that this command may ingest when it opens the house itself; a running
    server has its own list.
    """
    overrides = {"home": home, "log_level": "warning"}
    settings = read_settings(overrides)
    if owner := owner_of(settings.home):
        with _client(_served_at(owner.url, settings.home)) as client:
            yield client
        return
    own = settings.model_copy(update={"ingest_roots": (*settings.ingest_roots, *roots)})
    try:
        with open_house(own) as house, listen("127.0.0.1", 0) as listener:
            url = url_of(listener)
            server = uvicorn.Server(uvicorn.Config(house.app, log_config=None, access_log=False))
            thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
            thread.start()
            house.lock.announce(url)
            try:
                with _client(url) as client:
                    yield client
            finally:
                server.should_exit = True
                thread.join(timeout=10)
    except HomeLockedError as error:  # somebody was quicker
        with _client(_served_at(error.owner.url, settings.home)) as client:
            yield client


@contextmanager
def _client(url: str) -> Iterator[Client]:
    # The server is on this machine: a proxy of the environment must not see the call.
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:
        yield Client(http)


def _served_at(url: str | None, home: Path) -> str:
    if url is None:
        raise StartupError(f"The server that owns `{home}` is still starting; try again shortly.")
    return url


def _raise(reply: httpx.Response) -> None:
    try:
        error = reply.json()["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {reply.status_code}: {reply.text[:300]}"
    raise NotFoundError(message) if reply.status_code == 404 else EmbedserveError(message)
