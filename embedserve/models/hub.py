"""Repositories on the model hub: what is in them, fetched into the hub's own cache and verified.

The hub's settings count: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME, and the proxies of the
environment. Which files of a repository are wanted is not decided here.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event, Thread
from typing import TYPE_CHECKING

from embedserve.errors import ModelError
from embedserve.models.hub_errors import is_cut, is_server_fault, refusal
from embedserve.models.hub_verify import is_digest, verify

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

Progress = Callable[[str, int | None, int | None], None]
"""Told the stage, and how many bytes of it are done out of how many, where that is known."""

Choose = Callable[[Sequence[str]], list[str]]
"""Picks file names out of a repository's, in the order in which they are to be fetched."""

LIST_ATTEMPTS = 3
FRUITLESS_ATTEMPTS = 5
"""Attempts in a row at one file that bring no further byte, before the fetch is given up."""

_WATCH_EVERY_S = 0.2


@dataclass(frozen=True)
class HubOptions:
    """Where the hub is; None leaves it to the hub's own settings."""

    endpoint: str | None = None
    cache_folder: Path | None = None
    token: str | None = None
    pause_s: float = 1
    """Before the second attempt; it doubles with every further one."""


@dataclass(frozen=True)
class Address:
    """A repository at a branch, tag or commit."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"`{self.repository}` at `{self.revision}`"


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit, in a folder as they lie in the repository."""

    folder: Path
    commit: str


@dataclass(frozen=True)
class _Listed:
    """A file as the hub lists it; None where it does not say."""

    name: str
    size_bytes: int | None
    digest: str | None
    """sha256 (64 hex digits) of a large file, git's sha1 (40) of a small one."""


def fetch(address: Address, choose: Choose, hub: HubOptions, progress: Progress) -> Snapshot:
    """Bring the chosen files of a repository into the cache, and verify every one of them.

    Files that are there already are not fetched again, cut downloads go on where they ended, and
    of several processes that want one file only one fetches it. Raises ModelError that says what
    to do when the hub refuses, does not answer, or sends something else than it lists.
    """
    # Xet, the hub's other way to transfer, can neither resume after a kill nor be verified here.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    # Imported here: the package is slow to load and a server that pulls nothing never needs it.
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    if constants.HF_HUB_OFFLINE:
        return _cached(address, choose, hub)
    with _refused(address, hub):
        commit, listed = _list(address, hub)
        chosen = [listed[name] for name in choose(list(listed))]
        _check_space(address, chosen, hub)
        for file in chosen:
            path = _fetch_file(Address(address.repository, commit), file, hub, progress)
            verify(path, file.name, file.digest)
        _remember(address, commit, hub)
        # The cache lays files out as the repository does, below a folder named after the commit.
        return Snapshot(path.parents[len(PurePosixPath(file.name).parts) - 1], commit)


def _remember(address: Address, commit: str, hub: HubOptions) -> None:
    """Note in the cache which commit a branch or tag stands for, for those who are offline."""
    if address.revision != commit:
        reference = _repository_folder(address, hub) / "refs" / address.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, "utf-8")


def _cached(address: Address, choose: Choose, hub: HubOptions) -> Snapshot:
    """Take from the cache what an earlier fetch left there; ask nobody."""
    from huggingface_hub import snapshot_download

    with _refused(address, hub):
        folder = Path(
            snapshot_download(
                address.repository,
                revision=address.revision,
                cache_dir=hub.cache_folder,
                local_files_only=True,
            )
        )
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    try:
        chosen = choose(present)
    except ModelError as error:
        raise ModelError(
            f"{error} HF_HUB_OFFLINE is set; unset it to fetch what `{cache_of(hub)}` lacks."
        ) from error
    for name in chosen:
        verify(folder / name, name, None)
    return Snapshot(folder, folder.name)


def _list(address: Address, hub: HubOptions) -> tuple[str, dict[str, _Listed]]:
    """Ask for the commit that the revision stands for, and the files in it by name."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    for attempt in range(LIST_ATTEMPTS):
        try:
            told = api.model_info(
                address.repository,
                revision=address.revision,
                files_metadata=True,
                timeout=HF_HUB_DOWNLOAD_TIMEOUT,
            )
            break
        except OSError as error:
            is_last = attempt == LIST_ATTEMPTS - 1
            if is_last or not (is_cut(error) or is_server_fault(error)):
                raise
            _pause(hub, attempt)
    if told.sha is None:
        raise ModelError(f"The hub names no commit for {address}; pull it again later.")
    return told.sha, {file.rfilename: _listed(file) for file in told.siblings or []}


def _listed(file: "RepoSibling") -> _Listed:
    told = file.lfs.sha256 if file.lfs else file.blob_id
    # It becomes a file name: nothing but a digest will do.
    digest = told if is_digest(told) else None
    return _Listed(file.rfilename, file.lfs.size if file.lfs else file.size, digest)


def _fetch_file(address: Address, file: _Listed, hub: HubOptions, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    incomplete = _blob(address, file, hub, suffix=".incomplete")
    if file.size_bytes is not None and _size(incomplete) > file.size_bytes:
        incomplete.unlink()  # no beginning of this file
    fruitless = 0
    with _watched(file, incomplete, progress):
        while True:
            arrived = _size(incomplete)
            try:
                return Path(
                    hf_hub_download(
                        address.repository,
                        file.name,
                        revision=address.revision,
                        endpoint=hub.endpoint,
                        cache_dir=hub.cache_folder,
                        token=hub.token,
                    )
                )
            except OSError as error:
                fruitless = 0 if _size(incomplete) > arrived else fruitless + 1
                if not is_cut(error) or fruitless == FRUITLESS_ATTEMPTS:
                    raise
                _pause(hub, fruitless)


@contextmanager
def _watched(file: _Listed, incomplete: Path, progress: Progress) -> Iterator[None]:
    """Tell how much of a file has arrived, whoever fetches it, and at the end that it is whole."""
    stage, is_over = f"pulling {file.name}", Event()

    def watch() -> None:
        told = 0
        while not is_over.wait(_WATCH_EVERY_S):
            arrived = _size(incomplete)
            if arrived > told:
                progress(stage, arrived, file.size_bytes)
                told = arrived

    progress(stage, _size(incomplete), file.size_bytes)
    # The hub's library tells nobody how far it is, but its file grows.
    thread = Thread(target=watch, name="pull progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    progress(stage, file.size_bytes, file.size_bytes)


def _check_space(address: Address, files: Sequence[_Listed], hub: HubOptions) -> None:
    missing_bytes = 0
    for file in files:
        if not _blob(address, file, hub).exists():
            arrived = _size(_blob(address, file, hub, suffix=".incomplete"))
            missing_bytes += (file.size_bytes or 0) - arrived
    cache = cache_of(hub)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    if missing_bytes > free_bytes:
        raise ModelError(
            f"`{address.repository}` needs {missing_bytes / 1e6:,.1f} MB more in `{cache}`, where "
            f"{free_bytes / 1e6:,.1f} MB are free. Make room, or set HF_HOME to a folder on "
            "another disk."
        )


def cache_of(hub: HubOptions) -> Path:
    """Return the folder in which the hub's library keeps what it fetched."""
    from huggingface_hub import constants

    return hub.cache_folder or Path(constants.HF_HUB_CACHE)


def _blob(address: Address, file: _Listed, hub: HubOptions, suffix: str = "") -> Path:
    """Return where the cache keeps a file's content: under its digest."""
    return _repository_folder(address, hub) / "blobs" / f"{file.digest}{suffix}"


def _repository_folder(address: Address, hub: HubOptions) -> Path:
    return cache_of(hub) / "--".join(("models", *address.repository.split("/")))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pause(hub: HubOptions, attempt: int) -> None:
    # Nobody can tell when a connection will hold; this is the hub's time to recover.
    Event().wait(hub.pause_s * 2**attempt)


@contextmanager
def _refused(address: Address, hub: HubOptions) -> Iterator[None]:
    """Turn the hub's errors into one that says what to do."""
    try:
        yield
    except (OSError, ValueError) as error:
        message = refusal(address.repository, address.revision, cache_of(hub), error)
        raise ModelError(message) from error
