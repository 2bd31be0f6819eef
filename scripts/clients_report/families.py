"""The environments: which clients fit together, how each is made, and how its checks are run."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
INSTALL_S = 1800
CHECKS_S = 600

Kind = Literal["python", "node"]


@dataclass(frozen=True)
class Family:
    """Clients that share an environment."""

    name: str
    kind: Kind
    script: str
    """In `checks` for Python, in `js` for Node."""
    pins: tuple[str, ...]
    """Files with the exact versions; the environment is made anew when they change."""


FAMILIES = (
    Family("langchain", "python", "langchain_checks.py", ("langchain.txt",)),
    Family("gateways", "python", "gateway_checks.py", ("gateways.txt",)),
    Family("haystack", "python", "haystack_checks.py", ("haystack.txt",)),
    Family("chroma", "python", "chroma_checks.py", ("chroma.txt",)),
    Family("js", "node", "checks.mjs", ("js/package.json", "js/package-lock.json")),
)


def prepare(family: Family, cache: Path) -> Path:
    """Make the family's environment unless it is there, and return its folder."""
    content = b"".join((HERE / name).read_bytes() for name in family.pins)
    folder, digest = cache / family.name, hashlib.sha256(content).hexdigest()
    stamp = folder / "embedserve-installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {family.name} into {folder} ...", file=sys.stderr, flush=True)
    if family.kind == "python":
        _install_python(folder, HERE / family.pins[0])
    else:
        _install_node(folder, [HERE / name for name in family.pins])
    # Written last, so that a broken installation is repeated.
    stamp.write_text(digest, encoding="ascii")
    return folder


def _install_python(folder: Path, pins: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], folder.parent)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--requirement", str(pins)], folder)


def _install_node(folder: Path, pins: list[Path]) -> None:
    folder.mkdir(parents=True)
    for path in pins:
        shutil.copy(path, folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S, stdout=sys.stderr)


def run_checks(family: Family, folder: Path, url: str, reranker: str) -> list[dict[str, Any]]:
    """Run the family's checks in its environment; return their rows."""
    if family.kind == "python":
        command = [str(folder / "bin" / "python"), str(HERE / "checks" / family.script)]
    else:
        # Node looks for packages beside the script.
        shutil.copy(HERE / "js" / family.script, folder)
        command = ["node", family.script]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**_quiet_environment(), "CLIENTS_URL": url, "CLIENTS_RERANKER": reranker},
        stdout=subprocess.PIPE,
        check=False,
        timeout=CHECKS_S,
    )
    if done.returncode:
        raise SystemExit(f"The checks of `{family.name}` ended with status {done.returncode}.")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _quiet_environment() -> dict[str, str]:
    """Return an environment without proxies and keys, in which no client reports to anybody."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith(("_proxy", "_api_key")) and not name.startswith("OLLAMA_")
    }
    silent = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    return {**kept, **silent, "ANONYMIZED_TELEMETRY": "False", "DO_NOT_TRACK": "1"}
