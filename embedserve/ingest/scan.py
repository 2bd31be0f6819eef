"""Walk a folder, and tell what changed since the catalog last saw it. Reads no file's content,
except of ignore files and in `sha256_file`.

A name that begins with a dot is skipped, folder or file: such files hold settings and secrets,
seldom documents.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pathspec

from embedserve.errors import PathNotFoundError
from embedserve.types import FileProblem, FoundFile, KnownFile, Plan

SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
IGNORE_FILES = (".gitignore", ".embedserveignore")
MAX_IGNORE_FILE_BYTES = 1024 * 1024

OnProblem = Callable[[FileProblem], None]


@dataclass(frozen=True)
class ScanRules:
    """Globs in the grammar of `.gitignore`, relative to the root."""

    include: tuple[str, ...] = ()
    """Only files that match one of these; empty means all."""
    exclude: tuple[str, ...] = ()


def scan(root: Path, rules: ScanRules, on_problem: OnProblem) -> Iterator[FoundFile]:
    """Yield the files under `root` (or `root` itself when it is a file), in a fixed order.

    What cannot be entered is given to `on_problem`, and the walk goes on.
    Raises PathNotFoundError when there is nothing at `root`.
    """
    try:
        real = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PathNotFoundError(
            f"Nothing to ingest at `{root}`; check that it exists and is not a circle of links."
        ) from error
    if real.is_dir():
        yield from _Walk(str(real), rules, on_problem).files()
        return
    status = real.stat()
    if stat.S_ISREG(status.st_mode):
        yield FoundFile(str(real), status.st_size, status.st_mtime_ns)


def plan(
    found: Iterable[FoundFile], known: Mapping[str, KnownFile], *, unseen: Collection[str] = ()
) -> Plan:
    """Compare a scan with the catalog; `known` is keyed by path.

    `unseen` are folders that could not be read in this scan: what is known below them is left
    as it is, because nothing says that it is gone.
    """
    add: list[FoundFile] = []
    update: list[FoundFile] = []
    unchanged: list[KnownFile] = []
    missing = dict(known)
    for file in found:
        before = missing.pop(file.path, None)
        if before is None:
            add.append(file)
        elif _is_same(file, before):
            unchanged.append(before)
        else:
            update.append(file)
    for path in [path for path in missing if _is_below(path, unseen)]:
        unchanged.append(missing.pop(path))
    return Plan(tuple(add), tuple(update), tuple(missing), tuple(unchanged))


def _is_same(file: FoundFile, before: KnownFile) -> bool:
    if before.problem is not None and before.problem.is_retryable:
        return False
    return (file.size_bytes, file.mtime_ns) == (before.size_bytes, before.mtime_ns)


def _is_below(path: str, folders: Collection[str]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


@dataclass(frozen=True)
class _Ignore:
    """The ignore files of one folder; their patterns are relative to it."""

    folder: str
    spec: pathspec.GitIgnoreSpec

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """Return True for ignored, False for expressly kept, None for not mentioned."""
        relative = path[len(self.folder.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
        return self.spec.check_file(relative + "/" if is_folder else relative).include


@dataclass
class _Walk:
    """One pass over a resolved root. Links wait until all that is not a link has been seen,
    so a file is reported once, under its own name, however many links lead to it."""

    root: str
    rules: ScanRules
    on_problem: OnProblem
    links: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.include = pathspec.GitIgnoreSpec.from_lines(self.rules.include)
        self.exclude = pathspec.GitIgnoreSpec.from_lines(self.rules.exclude)

    def files(self) -> Iterator[FoundFile]:
        yield from self.below(self.root)
        while self.links:
            waiting, self.links = sorted(self.links), []
            for link in waiting:
                yield from self.follow(link)

    def below(self, top: str) -> Iterator[FoundFile]:
        stack: list[tuple[str, tuple[_Ignore, ...]]] = [(top, ())]
        while stack:
            folder, ignores = stack.pop()
            if folder in self.seen:
                continue
            self.seen.add(folder)
            entries = self.entries(folder)
            ignores = (*_ignore_files(folder, entries, self.on_problem), *ignores)
            folders = []
            for entry in entries:
                if self.is_skipped(entry, ignores):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, ignores))
                elif entry.is_symlink():
                    self.links.append(entry.path)
                else:
                    yield from self.file(entry.path)
            stack.extend(reversed(folders))

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []  # removed since its parent was listed
        except OSError as error:
            self.report(folder, "permission_denied", f"Cannot list `{folder}`: {error.strerror}.")
            return []
        return [entry for entry in found if self.has_good_name(entry)]

    def has_good_name(self, entry: os.DirEntry[str]) -> bool:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
            self.report(shown, "bad_file_name", f"The name of `{shown}` is not valid UTF-8.")
            return False
        return True

    def is_skipped(self, entry: os.DirEntry[str], ignores: tuple[_Ignore, ...]) -> bool:
        name = entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if name.startswith(".") or (is_folder and name in SKIPPED_FOLDERS):
            return True
        relative = self.relative(entry.path) + ("/" if is_folder else "")
        if self.rules.exclude and self.exclude.match_file(relative):
            return True
        if self.rules.include and not is_folder and not self.include.match_file(relative):
            return True
        for ignore in ignores:  # the nearest folder's word counts
            verdict = ignore.verdict(entry.path, is_folder=is_folder)
            if verdict is not None:
                return verdict
        return False

    def relative(self, path: str) -> str:
        return path[len(self.root.rstrip(os.sep)) + 1 :].replace(os.sep, "/")

    def file(self, path: str) -> Iterator[FoundFile]:
        if path in self.seen:
            return
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return  # removed since its folder was listed
        except OSError as error:
            self.report(path, "permission_denied", f"Cannot look at `{path}`: {error.strerror}.")
            return
        if stat.S_ISREG(status.st_mode):  # not a socket, fifo or device
            self.seen.add(path)
            yield FoundFile(path, status.st_size, status.st_mtime_ns)

    def follow(self, link: str) -> Iterator[FoundFile]:
        try:
            target = os.path.realpath(link, strict=True)
        except OSError as error:
            self.report(link, "broken_link", f"The link `{link}` leads nowhere: {error.strerror}.")
            return
        if not _is_below(target, (self.root.rstrip(os.sep),)):
            self.report(link, "outside_root", f"The link `{link}` leads out of `{self.root}`.")
        elif os.path.isdir(target):
            yield from self.below(target)
        else:
            yield from self.file(target)

    def report(self, path: str, code: str, message: str) -> None:
        self.on_problem(
            FileProblem(path, code, "scan", message, _HINTS[code], code == "permission_denied")
        )


_HINTS = {
    "permission_denied": "Give the user that runs embedserve the right to read it.",
    "bad_file_name": "Rename it.",
    "broken_link": "Remove the link or restore what it led to.",
    "outside_root": "Ingest the target itself, if it is meant to be read.",
}


def _ignore_files(
    folder: str, entries: list[os.DirEntry[str]], on_problem: OnProblem
) -> Iterator[_Ignore]:
    lines: list[str] = []
    for entry in entries:
        if entry.name not in IGNORE_FILES or not entry.is_file(follow_symlinks=False):
            continue
        try:
            with open(entry.path, encoding="utf-8", errors="replace") as file:
                lines += file.read(MAX_IGNORE_FILE_BYTES).splitlines()
        except OSError as error:
            # Better to index too much than to lose files silently; but it is said.
            message = f"Its rules are not applied, for it cannot be read: {error.strerror}."
            hint = "Give the user that runs embedserve the right to read it."
            on_problem(
                FileProblem(
                    entry.path, "permission_denied", "scan", message, hint, is_retryable=True
                )
            )
    if lines:
        yield _Ignore(folder, pathspec.GitIgnoreSpec.from_lines(lines))
