"""Open a file that somebody else may turn into anything meanwhile."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from embedserve.ingest.extract_errors import failure


@contextmanager
def opened(path: Path, root: Path, max_bytes: int, *, hint: str = "") -> Iterator[int]:
    """Open a regular file inside `root`, whatever its name or its folders turn into meanwhile."""
    try:
        real, real_root = path.resolve(strict=True), root.resolve(strict=True)
        if not real.is_relative_to(real_root):
            raise failure("outside_root", path)
        # Without O_NONBLOCK a fifo would block the open itself.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        file = os.open(real, flags)
    except FileNotFoundError as error:
        raise failure("not_found", path) from error
    except (OSError, RuntimeError) as error:
        raise failure("permission_denied", path, {"message": f"{error}"}) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise failure("not_a_file", path)
        if not _is_really_in(file, real_root):
            raise failure("outside_root", path)
        if status.st_size == 0:
            raise failure("empty_file", path)
        if status.st_size > max_bytes:
            words = f"It has {status.st_size} bytes."
            raise failure("too_large", path, {"message": words, "hint": hint})
        yield file
    finally:
        os.close(file)


class FileState(NamedTuple):
    """What changes when a file does."""

    size_bytes: int
    mtime_ns: int


def state_of(file: int) -> FileState:
    """Return what an open file is like now."""
    status = os.fstat(file)
    return FileState(status.st_size, status.st_mtime_ns)


def _is_really_in(file: int, root: Path) -> bool:
    """Ask the kernel where the open file lies: a folder may have become a link since `resolve`."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{file}")).is_relative_to(root)
    except OSError:
        return True  # no /proc: the check before opening has to do
