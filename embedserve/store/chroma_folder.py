"""The folder of a Chroma child as its supervision sees it: which one it is, its room, its end."""

import glob
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

ROOM_BYTES = 16 * 1024 * 1024
"""With less free space, whatever goes wrong is no fault of the folder."""


class Place(NamedTuple):
    """What tells a database from another one that was put in its place."""

    device: int
    inode: int


def place_of(folder: Path) -> Place | None:
    """Return the place of a folder's database, None where there is none."""
    try:
        status = (folder / "chroma.sqlite3").stat()
    except OSError:
        return None
    return Place(status.st_dev, status.st_ino)


def has_room(folder: Path) -> bool:
    """Tell whether the folder is there, on a disk that is not full."""
    try:
        return shutil.disk_usage(folder).free >= ROOM_BYTES
    except OSError:
        return False


def set_aside(folder: Path) -> bool:
    """Rename the folder, keeping only this one of all that were; tell whether that went well."""
    for older in glob.glob(f"{glob.escape(str(folder))}.damaged-*"):
        shutil.rmtree(older, ignore_errors=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = folder.with_name(f"{folder.name}.damaged-{stamp}")
    try:
        folder.rename(target)
    except OSError as error:
        logger.error("Chroma does not run from its folder, which cannot be moved: %s", error)
        return False
    logger.error("Chroma does not run from its folder; moved it to %s", target)
    return True
