"""Whether a fetched file is the one that the hub lists."""

import hashlib
import re
from pathlib import Path

from embedserve.errors import ModelError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


def is_digest(text: str | None) -> bool:
    """Return whether `text` is a digest that `verify` can compare."""
    return bool(text and (_SHA256.fullmatch(text) or _GIT_SHA1.fullmatch(text)))


def verify(path: Path, name: str, digest: str | None) -> None:
    """Compare a file of the hub's cache with its digest; without one, with what it is stored under.

    Raises ModelError for any other content, after deleting it.
    """
    # The cache keeps content under the ETag, which is the digest, and links to it.
    content = path.resolve()
    expected = digest or content.name
    if _SHA256.fullmatch(expected):
        found = _sha256(content)
    elif _GIT_SHA1.fullmatch(expected):
        found = _git_sha1(content)
    else:
        raise ModelError(
            f"The hub gives no digest for `{name}`, so it cannot be verified. Pull from a hub that "
            "does, or give a folder with `--from FOLDER`."
        )
    if found != expected:
        path.unlink()
        content.unlink(missing_ok=True)
        raise ModelError(
            f"`{name}` is not what the hub lists: its digest is {found[:12]} instead of "
            f"{expected[:12]}. It was deleted; pull the model again."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    """Return the id that git gives to the content: sha1 over a header and the bytes."""
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
