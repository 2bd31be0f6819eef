"""How commands reach the house: over HTTP, whoever owns the home.

While a server runs on the home, commands talk to it. Otherwise the house is opened in this very
process for the length of the command, behind a loopback port of its own: one path for both.
A house that another command has opened is shared by short commands; long ones wait for its end.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast
from urllib.parse import quote

import httpx
import typer
from pydantic import SecretStr

from embedserve.bootstrap.sources import read_all
from embedserve.errors import EmbedserveError, InvalidRequestError, NotFoundError, StartupError
from embedserve.store.home_lock import HomeLockedError, Owner, guest_of, owner_key

# A query may wait for a model to load, a job for its index; neither takes longer than this.
TIMEOUT_S = 300.0
OWNER_S = 30.0
PROBE_S = 2.0
POLL_S = 0.05

OWNER_HEADER = "X-Embedserve-Owner"
"""As `api/viewers.py` reads it: whoever can read the home sees all of its indexes."""
COMMAND_HEADER = "X-Embedserve-Command"
"""On every reply of a house that a command opened: it ends with that command."""

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
    """Call the API; an error becomes the one that the server named.

    A path is given in its segments, so that a name in it may hold any character.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, *path: str, **query: str | int | list[str]) -> Json:
        """GET a JSON object."""
        return self._call("GET", path, params=query)

    def post(self, *path: str, body: Json | None = None) -> Json:
        """POST a JSON object and return the reply."""
        return self._call("POST", path, json=body or {})

    def put(self, *path: str, body: Json) -> Json:
        """PUT a JSON object and return the reply."""
        return self._call("PUT", path, json=body)

    def delete(self, *path: str, body: Json | None = None) -> Json:
        """DELETE, with a body where the API wants one."""
        return self._call("DELETE", path, json=body)

    def lines(self, *path: str, body: Json) -> Iterator[Json]:
        """POST, and give each line of the streamed reply."""
        with (
            self._translated(),
            self._http.stream("POST", _url_path(path), json=body, timeout=None) as reply,
        ):
            if not reply.is_success:
                reply.read()
                _raise(reply)
            for line in reply.iter_lines():
                yield cast(Json, httpx.Response(200, text=line).json())

    def download(self, *path: str) -> Iterator[bytes]:
        """GET, and give the reply's body part by part."""
        with self._translated(), self._http.stream("GET", _url_path(path), timeout=None) as reply:
            if not reply.is_success:
                reply.read()
                _raise(reply)
            yield from reply.iter_bytes(1 << 20)

    def upload(self, *path: str, body: Iterable[bytes], method: str = "POST", **query: str) -> Json:
        """Send a body part by part and return the reply."""
        return self._call(method, path, content=body, params=query, timeout=None)

    def send(
        self, *path: str, files: Iterable[tuple[str, BinaryIO]], fields: dict[str, str]
    ) -> Json:
        """POST a form of named files, read as they are sent, and fields."""
        parts = [("file", (name, file)) for name, file in files]
        return self._call("POST", path, files=parts, data=fields, timeout=None)

    def _call(self, method: str, path: tuple[str, ...], **options: Any) -> Json:  # noqa: ANN401
        with self._translated():
            reply = self._http.request(method, _url_path(path), **options)
            # A redirection is none of ours; following it would take the call elsewhere.
            if not reply.is_success:
                _raise(reply)
            return cast(Json, reply.json()) if reply.content else {}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise EmbedserveError(
                f"The server at {self._http.base_url} did not answer to the end: "
                f"{error or type(error).__name__}. Look at its log, or start it again."
            ) from error
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"`{error.object!a}` is not valid UTF-8. Give text, or rename the file."
            ) from error
        except ValueError as error:
            raise EmbedserveError(
                f"What answers at {self._http.base_url} does not speak embedserve's API. "
                "Look at what runs there."
            ) from error


@contextmanager
def connect(
    home: Path | None,
    *,
    roots: tuple[Path, ...] = (),
    is_long: bool = False,
    is_apart: bool = False,
    patience_s: float = OWNER_S,
) -> Iterator[Client]:
    """Give a client of the home's server, or of a house opened for this command.

    `roots` are folders that this command may ingest when it opens the house itself; a running
    server has its own list. A long command runs jobs, and shares no house of another command.
    A house that is opened `is_apart` has neither the project's definitions nor another's Chroma.
    A home that another process is opening or leaving may take `patience_s` to be free, or served.
    """
    settings = read_all({"home": home, "log_level": "warning"}).settings
    changes: Json = {"ingest_roots": (*settings.ingest_roots, *roots)}
    if is_apart:
        changes |= {"definitions": None, "chroma_url": None}
    settings = settings.model_copy(update=changes)
    with ExitStack() as stack:
        url = _visit(settings.home, stack, is_long=is_long, patience_s=patience_s)
        while url is None:
            # Every part of the house is loaded here, and only where no server has it.
            from embedserve.cli.own_house import own_house, with_own_key

            try:
                opened = with_own_key(settings)
                url = stack.enter_context(own_house(opened, runs_jobs=is_long))
                settings = opened
            except HomeLockedError:  # somebody was quicker
                url = _visit(settings.home, stack, is_long=is_long, patience_s=patience_s)
        own = owner_key(settings.home)
        yield stack.enter_context(client_of(url, settings.api_key, own_key=own))


def find_server(home: Path) -> str:
    """Return where a home is served; raise StartupError where no server runs on it."""
    with ExitStack() as stack:
        url = _visit(home, stack, is_long=True, patience_s=OWNER_S)
    if url is None:
        raise StartupError(
            f"No server runs on `{home}`. Start one: `embedserve serve --home {home}`. Or name "
            "one by `--url`."
        )
    return url


def _visit(home: Path, stack: ExitStack, *, is_long: bool, patience_s: float) -> str | None:
    """Return where the home is served, waiting for it to start or to end; None: it is free.

    A house of another command stays until `stack` is closed.
    """
    deadline = time.monotonic() + patience_s
    while True:
        with ExitStack() as stay:
            owner = stay.enter_context(guest_of(home))
            if owner is None:
                return None
            reply = _probe(owner)
            is_command = reply is not None and COMMAND_HEADER in reply.headers
            if reply is not None and not (is_command and is_long):
                stack.push(stay.pop_all())
                return owner.url
        if time.monotonic() > deadline:
            raise StartupError(
                f"Another command (process {owner.pid}) is using `{home}`. "
                "Run this one again when that one is done."
                if is_command
                else f"Process {owner.pid} owns `{home}` and does not serve yet, or no longer. "
                "Try again shortly, or end that process."
            )
        time.sleep(POLL_S)  # another process's file and port give no event to wait for


def _probe(owner: Owner) -> httpx.Response | None:
    """Ask the owner whether it serves: it may be starting, or about to end."""
    if owner.url is None:
        return None
    try:
        return httpx.get(f"{owner.url}/health", timeout=PROBE_S, trust_env=False)
    except httpx.TimeoutException:
        return httpx.Response(200)  # busy, but there; the command has more patience
    except httpx.HTTPError:
        return None


@contextmanager
def client_of(url: str, key: SecretStr | None, *, own_key: str = "") -> Iterator[Client]:
    """Give a client of the server at an address; `own_key`: of the home that it owns."""
    headers = headers_of(key, own_key)
    # It is the server that was named: a proxy of the environment must not see the call.
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as http:
        yield Client(http)


def headers_of(key: SecretStr | None, own_key: str) -> dict[str, str]:
    """Return what shows a server who calls: a key of its settings, and the key of its home."""
    shown = {"X-Api-Key": key.get_secret_value()} if key else {}
    return {**shown, OWNER_HEADER: own_key} if own_key else shown


def _url_path(segments: tuple[str, ...]) -> str:
    if "" in segments:
        raise typer.BadParameter("A name is empty; an empty name names nothing.")
    # Segments of dots alone would be resolved as in a file system.
    quoted = [quote(part, safe="", errors="surrogateescape") for part in segments]
    return "/" + "/".join(
        part.replace(".", "%2E") if not part.strip(".") else part for part in quoted
    )


def _raise(reply: httpx.Response) -> None:
    try:
        error = reply.json()["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {reply.status_code}: {reply.text[:300]}"
    if reply.status_code in (401, 403) and "WWW-Authenticate" in reply.headers:
        message = f"{message} Commands send EMBEDSERVE_API_KEY."
    raise NotFoundError(message) if reply.status_code == 404 else EmbedserveError(message)
