"""Small disks of their own for tests that fill them, or make them read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, size_mib: int) -> Iterator[Path]:
    """Mount a disk in memory on a folder; where that is not allowed the test is skipped, loudly."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NO MOUNT, nothing was checked on a full disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, left_bytes: int) -> Path:
    """Fill the disk of a folder but for some bytes; return the file that does it."""
    status = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * (status.f_bavail * status.f_frsize - left_bytes))
    return ballast


def make_read_only(folder: Path) -> None:
    """Mount the disk of a folder anew, without the right to write."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
