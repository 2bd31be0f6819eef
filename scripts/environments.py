"""Environments of programs that scripts try: made once from pinned versions, apart from ours."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

INSTALL_S = 1800


def python_environment(folder: Path, pins: Path, wanted: Sequence[str] = ()) -> Path:
    """Make a virtual environment with the packages of `pins`, unless it is there; return it.

    With `wanted`, of these packages and what they need on this machine (torch needs other packages
    where there is a GPU), in the versions of `pins`.
    """
    chosen = ["--constraint", str(pins), *wanted] if wanted else ["--no-deps", "-r", str(pins)]

    def install() -> None:
        _run([sys.executable, "-m", "venv", str(folder)], folder.parent)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *chosen], folder)

    return _made(folder, [pins], install)


def node_environment(folder: Path, pins: Sequence[Path]) -> Path:
    """Install `package.json` and its lock file into a folder, unless that is done; return it."""

    def install() -> None:
        folder.mkdir(parents=True)
        for path in pins:
            shutil.copy(path, folder)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    return _made(folder, pins, install)


def _made(folder: Path, pins: Sequence[Path], install: Callable[[], None]) -> Path:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    stamp = folder / "embedserve-installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {folder.name} into {folder} ...", file=sys.stderr, flush=True)
    install()
    # Written last, so that a broken installation is repeated.
    stamp.write_text(digest, encoding="ascii")
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S, stdout=sys.stderr)
