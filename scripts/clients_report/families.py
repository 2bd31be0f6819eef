"""The environments: which clients fit together, how each is made, and how its checks are run."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scripts.environments import node_environment, python_environment

HERE = Path(__file__).parent
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
    folder, pins = cache / family.name, [HERE / name for name in family.pins]
    if family.kind == "node":
        return node_environment(folder, pins)
    return python_environment(folder, pins[0])


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
