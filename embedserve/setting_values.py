"""What values of settings must be: checks that raise ValueError, and their usual forms."""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit


def split_paths(value: object) -> object:
    """Return paths that are separated as in PATH."""
    if isinstance(value, str):
        return tuple(Path(part) for part in value.split(os.pathsep) if part)
    return value


def split_commas(value: object) -> object:
    """Return words that are separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def with_schemes(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse origins of pages that lack `https://` or another scheme."""
    if origin := first_without_scheme(origins):
        raise ValueError(f"origin `{origin}` lacks its scheme: write `https://{origin}`")
    return origins


def first_without_scheme(origins: Iterable[str]) -> str | None:
    """Return the first origin of pages that is none: it lacks `https://` or another scheme."""
    bare = (one for one in origins if one not in ("*", "null") and "://" not in one)
    return next(bare, None)


def plain_url(value: str) -> str:
    """Return the URL of a server without the slash at its end."""
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError("it must be a URL such as http://127.0.0.1:11435")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it must be a URL without user, password, query and fragment")
    return value.rstrip("/")


def absolute(path: Path) -> Path:
    """Return the path as it is from the root, `~` replaced."""
    return path.expanduser().resolve()
