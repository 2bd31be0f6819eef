"""Why a file gave no text, in words for the user: what to do about each code."""

import signal
from pathlib import Path
from typing import Any

from embedserve.errors import ExtractionError
from embedserve.ingest.worker_process import WorkerGoneError, name_of_signal

# code -> (what happened, what to do). The rest comes from the worker with words of its own.
_WORDS: dict[str, tuple[str, str]] = {
    "not_found": ("It is gone.", ""),
    "not_a_file": ("It is a folder, device, socket or fifo.", ""),
    "permission_denied": ("", "Give the user that runs embedserve the right to read it."),
    "outside_root": ("It lies outside of the folder being ingested.", "Ingest it by itself."),
    "empty_file": ("It has 0 bytes.", "Fill it, or exclude it by a glob."),
    "too_large": ("", "Split it, or raise EMBEDSERVE_MAX_FILE_BYTES."),
    "text_too_large": ("Its text is too long.", "Split it, or raise EMBEDSERVE_MAX_TEXT_CHARS."),
    "no_room": ("", "A long text needs its size in free disk space while it is ingested."),
    "timed_out": ("Reading it took too long.", "Raise EMBEDSERVE_EXTRACT_TIMEOUT_S."),
    "out_of_memory": (
        "Reading it took more memory than allowed.",
        "Split it, or raise EMBEDSERVE_EXTRACT_MEMORY_BYTES.",
    ),
    "abandoned": ("Nobody waits for it any more.", "Run the job again."),
    "shutting_down": ("The server is stopping.", "Run the job again."),
}
_AT_OPENING = {
    "not_found", "not_a_file", "permission_denied", "outside_root", "empty_file", "too_large",
}  # fmt: skip
_RETRYABLE = {
    "not_found", "permission_denied", "no_room", "timed_out", "shutting_down", "abandoned",
}  # fmt: skip


def failure(code: str, path: Path, reply: dict[str, Any] | None = None) -> ExtractionError:
    """Make the error for a code, in the words of the worker's reply where there are some."""
    reply = reply or {}
    words, hint = _WORDS.get(code, ("", ""))
    is_opening = "code" not in reply and code in _AT_OPENING
    return ExtractionError(
        code,
        f"Cannot read `{path}`: {reply.get('message') or words}",
        stage="open" if is_opening else "extract",
        hint=reply.get("hint") or hint,
        is_retryable=code in _RETRYABLE,
    )


def death(error: WorkerGoneError, path: Path) -> ExtractionError:
    """Make the error for a worker that ended without an answer."""
    if error.signal_number == signal.SIGXCPU:
        return failure("timed_out", path)
    if "memory allocation of" in error.last_words or "MemoryError" in error.last_words:
        return failure("out_of_memory", path)
    cause = name_of_signal(error.signal_number) if error.signal_number else "an exit"
    last = error.last_words.rpartition("\n")[2]
    return ExtractionError(
        "extractor_died",
        f"Cannot read `{path}`: its extraction process ended by {cause}. {last}".rstrip(),
        stage="extract",
        hint="The file crashes the parser; convert it to another format.",
        # SIGKILL comes from outside: the system was short of memory, or somebody meant it.
        is_retryable=error.signal_number in (signal.SIGKILL, signal.SIGTERM),
    )
