"""Where the native code of extraction workers is unpacked while they load.

Folders of the system's temporary folder, which allows to run what lies there; each is deleted as
soon as its worker is up. What was killed before that left it behind: the next owner of the same
home sweeps.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """Temporary folders that name whose they are, so that they can be told from others'."""

    def __init__(self, owner: Path | None = None) -> None:
        """`owner` is the home that they belong to; None: this process alone."""
        named = os.fsencode(owner.resolve()) if owner else b"process %d" % os.getpid()
        mark = hashlib.sha256(named).hexdigest()[:16]
        self._prefix = f"embedserve-{mark}-"

    def folder(self) -> "tempfile.TemporaryDirectory[str]":
        """Make a folder that nobody else can write to."""
        return tempfile.TemporaryDirectory(prefix=self._prefix)

    def left_over(self) -> list[Path]:
        """List the folders that are there; while no worker of the owner loads, nobody needs them.

        Other users may choose any name: theirs are left out.
        """
        return [
            path
            for path in Path(tempfile.gettempdir()).glob(f"{self._prefix}*")
            if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()
        ]

    def sweep(self) -> int:
        """Delete what was left behind and return how many; for the start of a home alone."""
        found = self.left_over()
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        return len(found)
