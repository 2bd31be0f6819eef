"""Which folders may be read for ingestion. Deny by default."""

from collections.abc import Iterable
from pathlib import Path

from embedserve.errors import InvalidRequestError, PathNotAllowedError, PathNotFoundError


class AllowedRoots:
    """The folders that ingestion may read, symlinks resolved."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(sorted({root.expanduser().resolve() for root in roots}))

    def allow(self, path: str) -> Path:
        """Return `path` with symlinks resolved, whether or not there is anything.

        Raises InvalidRequestError for what is no absolute path, PathNotAllowedError outside
        the roots.
        """
        wanted = _resolve(path)
        self._check(path, wanted)
        return wanted

    def root_of(self, path: str) -> Path:
        """Return the folder by which `path`, symlinks resolved, is allowed; raise as `allow`."""
        return self._check(path, _resolve(path))

    def _check(self, path: str, wanted: Path) -> Path:
        found = next((root for root in self._roots if wanted.is_relative_to(root)), None)
        if found is None:
            raise PathNotAllowedError(
                f"`{path}` is outside the folders that may be ingested. Allow it where the server "
                f"is started: `embedserve serve --allow {wanted}`, or EMBEDSERVE_INGEST_ROOTS."
            )
        return found

    def check(self, path: str) -> Path:
        """Return `path` with symlinks resolved; it exists.

        Raises as `allow` does, before anything tells whether it exists, then PathNotFoundError.
        """
        wanted = self.allow(path)
        try:
            wanted.stat()
        except OSError as error:
            raise PathNotFoundError(
                f"`{path}` cannot be opened on the server's machine: {error.strerror}. Check the "
                "spelling and the rights of the user that runs the server; to drop the documents "
                "of a folder that was removed, ingest its parent folder."
            ) from error
        return wanted


def _resolve(path: str) -> Path:
    # No `~`: it would be the server's home, which is not what a caller elsewhere means.
    if "\0" in path or not Path(path).is_absolute():
        raise InvalidRequestError(
            f"`{path[:200]}` is not an absolute path, such as `/home/me/docs`."
        )
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # names that are too long, circles of links
        raise PathNotFoundError(f"`{path[:200]}` cannot be resolved: {error}.") from error
