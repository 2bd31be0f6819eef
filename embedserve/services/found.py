"""A file that a job is to ingest, wherever it was found."""

from dataclasses import dataclass
from pathlib import Path

from embedserve.types import FROM_FOLDER, FoundFile, Provenance


@dataclass(frozen=True)
class Found:
    """A file to ingest, under the path that it is listed with."""

    file: FoundFile
    root: Path
    place: Path | None = None
    """Where its bytes lie, if that is not its path."""
    title: str = ""
    """Instead of what the text says."""
    provenance: Provenance = FROM_FOLDER
