"""Which folders may be read for ingestion. Deny by default."""

from collections.abc import Iterable
from pathlib import Path

from embedserve.errors import PathNotAllowedError, PathNotFoundError


class AllowedRoots:
    """The folders that ingestion may read, symlinks resolved."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(sorted({root.expanduser().resolve() for root in roots}))

    def check(self, path: str) -> Path:
        """Return `path` with symlinks resolved.

        Raises PathNotAllowedError before anything tells whether it exists, then
        PathNotFoundError.
        """
        wanted = _resolve(path)
        if not any(wanted.is_relative_to(root) for root in self._roots):
            raise PathNotAllowedError(
                f"`{path}` is outside the folders that may be ingested. Allow it where the server "
                f"is started: `embedserve serve --allow {wanted}`, or EMBEDSERVE_INGEST_ROOTS."
            )
        if not wanted.exists():
            raise PathNotFoundError(
                f"`{path}` does not exist on the server's machine. Check the spelling; to drop "
                "the documents of a folder that was removed, ingest its parent folder."
            )
        return wanted


def _resolve(path: str) -> Path:
    if not path or "\0" in path:
        raise PathNotFoundError("`path` is empty or holds a NUL character; send a folder or file.")
    plain = Path(path).expanduser()
    if not plain.is_absolute():
        raise PathNotFoundError(
            f"`{path}` is a relative path; send an absolute one, such as `{Path.cwd() / path}`."
        )
    try:
        return plain.resolve()
    except OSError as error:  # loops of symlinks, names that are too long
        raise PathNotFoundError(f"`{path[:200]}` cannot be read: {error.strerror}.") from error
