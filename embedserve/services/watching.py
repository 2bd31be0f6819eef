"""Keep indexes in step with their sources as these change: `watch = true` in a definition.

Events of the file system start a job on the folder concerned; a rescan now and then catches what no
event told (network file systems, overflown queues) and fetches addresses again.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Protocol

from embedserve.errors import EmbedserveError
from embedserve.ingest.watch import Settling, changes, folder_of
from embedserve.services.definitions import stored_definition
from embedserve.services.roots import AllowedRoots
from embedserve.services.viewing import OWNER, acting_as
from embedserve.store.catalog import Catalog
from embedserve.types import Job

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
LOOK_S = 1.0


@dataclass(frozen=True)
class WatchTimes:
    """When a watch acts."""

    settle_s: float
    """How long files must have kept size and time."""
    rescan_s: float
    """Between two jobs on all sources; 0: none."""
    fallback_s: float
    """The same while the system refuses to watch."""


Root = tuple[str, int]
"""A folder and its number on disk: another folder in its place is another root."""


@dataclass
class _Watched:
    """An index that is watched."""

    definition: str
    folders: tuple[str, ...]
    rescan_at: float
    settling: dict[str, Settling] = field(default_factory=dict)
    is_new: bool = True
    """No job was queued for it yet."""


class Submits(Protocol):
    """Whoever queues jobs."""

    def submit(self, index_name: str, path: str | None) -> Job:
        """Queue a job on a folder, or on all sources."""
        ...


See = Callable[[Iterable[str], Event], Iterator[set[str]]]
"""What gives changes below folders, see `ingest.watch.changes`."""


class WatchService:
    """One thread that watches for every index that asks for it."""

    def __init__(
        self,
        catalog: Catalog,
        ingestion: Submits,
        roots: AllowedRoots,
        times: WatchTimes,
        notices: MutableMapping[str, str],
        *,
        see: See = changes,
    ) -> None:
        """`notices`: where to say, by index, that it cannot be watched."""
        self._catalog = catalog
        self._ingestion = ingestion
        self._allowed = roots
        self._times = times
        self._notices = notices
        self._see = see
        self._stop = Event()
        self._thread = Thread(target=self._work, name="watch", daemon=True)
        self._watched: dict[str, _Watched] = {}
        self._definitions: dict[str, tuple[str, ...] | None] = {}

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with acting_as(OWNER):
                    self._round()
            except EmbedserveError as error:  # of the catalog; the next round tries again
                logger.warning("watch: %s", error)
                self._stop.wait(LOOK_S)

    def _round(self) -> None:
        """Watch the present roots until they are others."""
        roots = self._roots()
        if not roots:
            self._catch_up(only_new=True)
            self._look(set())
            self._stop.wait(LOOK_S)
            return
        try:
            is_watching = False
            for found in self._see([path for path, _ in roots], self._stop):
                # Whatever changes from now on is seen, whatever changed before may not have been.
                self._catch_up(only_new=is_watching)
                is_watching = True
                self._clear_notices()
                self._look(found)
                if self._roots() != roots:
                    return
        except FileNotFoundError:  # a folder was removed a moment ago; the next round knows
            self._stop.wait(LOOK_S)
        except OSError as error:
            self._fall_back(error, len(roots))

    def _fall_back(self, error: OSError, count: int) -> None:
        """Say that there is no watch, and rescan more often for a while."""
        words = (
            f"Its folders cannot be watched ({error}); they are rescanned every "
            f"{self._times.fallback_s:g} s instead. On Linux raise fs.inotify.max_user_watches."
        )
        logger.warning("watch of %d folder(s): %s", count, words)
        self._catch_up(only_new=True)
        for name in self._watched:
            self._notices[name] = words
        ends_at = time.monotonic() + self._times.fallback_s
        step_s = min(LOOK_S, self._times.fallback_s)
        while time.monotonic() < ends_at and not self._stop.wait(step_s):
            self._roots()
            self._look(set())
        for name in list(self._watched):
            self._submit(name, None)

    def _catch_up(self, *, only_new: bool) -> None:
        """Queue jobs on all sources; where nothing changed they find nothing to do."""
        for name, watched in self._watched.items():
            if watched.is_new or not only_new:
                self._submit(name, None)
            watched.is_new = False

    def _clear_notices(self) -> None:
        for name in [name for name in self._notices if name in self._watched]:
            del self._notices[name]

    # -- which folders ------------------------------------------------------------------------

    def _roots(self) -> set[Root]:
        """Return the folders to watch now, and learn which indexes want it."""
        now = time.monotonic()
        wanted: dict[str, _Watched] = {}
        for index in self._catalog.indexes.all():
            folders = self._folders(index.definition)
            if folders is None:
                continue
            known = self._watched.get(index.name)
            if known is None or known.definition != index.definition:
                known = _Watched(index.definition, folders, now + self._times.rescan_s)
            wanted[index.name] = known
        for name in self._watched.keys() - wanted.keys():
            self._notices.pop(name, None)
        self._watched = wanted
        paths = {path for one in wanted.values() for path in one.folders}
        return {root for root in map(_root, paths) if root is not None}

    def _folders(self, definition: str) -> tuple[str, ...] | None:
        """Return an index's folders, None when it is not to be watched."""
        if definition not in self._definitions:
            if len(self._definitions) > 1000:
                self._definitions.clear()
            parsed = stored_definition(definition)
            paths = tuple(source.path for source in parsed.sources if self._may_watch(source.path))
            self._definitions[definition] = paths if parsed.watch and parsed.sources else None
        return self._definitions[definition]

    def _may_watch(self, path: str) -> bool:
        """Tell whether a folder may be read: a definition may be from elsewhere, or older."""
        try:
            return bool(path) and bool(self._allowed.allow(path))
        except EmbedserveError as error:
            logger.warning("watch: %s", error)
            return False

    # -- what to do ---------------------------------------------------------------------------

    def _look(self, found: set[str]) -> None:
        """Take changes, and start the jobs that are due."""
        now = time.monotonic()
        for name, watched in self._watched.items():
            for folder in watched.folders:
                inside = {path for path in found if _is_in(path, folder)}
                if inside and folder not in watched.settling:
                    watched.settling[folder] = Settling(
                        settle_s=self._times.settle_s, patience_s=PATIENCE_S
                    )
                if folder in watched.settling:
                    self._settle(name, folder, watched.settling[folder], inside)
            if self._times.rescan_s and now >= watched.rescan_at:
                watched.rescan_at = now + self._times.rescan_s
                self._submit(name, None)

    def _settle(self, name: str, folder: str, settling: Settling, inside: set[str]) -> None:
        now = time.monotonic()
        settling.add(inside, now)
        settled = settling.take(now)
        if settled:
            is_folder = os.path.isdir(folder)
            self._submit(name, folder_of(settled, folder) if is_folder else folder)

    def _submit(self, name: str, path: str | None) -> None:
        """Queue a job, unless the same one waits already."""
        for job in self._catalog.jobs.latest(20, index=name):
            is_same = job.kind == "ingest" and job.retry_of is None and job.path == (path or "")
            if is_same and job.status == "queued":
                return
        try:
            self._ingestion.submit(name, path)
        except EmbedserveError as error:  # its folder was removed, or its index
            logger.warning("watch of index %s: %s", name, error)


def _root(path: str) -> Root | None:
    try:
        return (path, os.stat(path).st_ino)
    except OSError:
        return None  # not mounted; it is looked for again every second


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
