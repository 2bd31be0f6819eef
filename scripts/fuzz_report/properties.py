"""Requests made from the OpenAPI document by schemathesis, in an environment of its own.

No answer may be 500, and every status must be one that the document names.
"""

import subprocess
from pathlib import Path

from scripts.environments import python_environment

PINS = Path(__file__).parent / "schemathesis.txt"
RULES = Path(__file__).parent / "schemathesis.toml"
RUN_S = 3600
CHECKS = "not_a_server_error,status_code_conformance"


def run_schemathesis(port: int, cache: Path, seed: int, examples: int) -> list[str]:
    """Run it against a server; return what it found, as it says it."""
    folder = python_environment(cache / "schemathesis", PINS)
    command = [
        str(folder / "bin" / "schemathesis"), "--config-file", str(RULES), "run",
        f"http://127.0.0.1:{port}/openapi.json", "--checks", CHECKS,
        "--seed", str(seed),
        "--max-examples", str(examples), "--generation-database", "none", "--no-color",
        "--continue-on-failure", "--phases", "examples,coverage,fuzzing",
        # Routes that fetch from the web, take the ground away, start work that goes on, or read
        # what is no JSON.
        "--exclude-path", "/api/pull", "--exclude-path", "/api/delete",
        "--exclude-path-regex", ".*/(ingest|import)",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=folder,  # where it leaves what it remembers
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    print(done.stdout)
    return [] if done.returncode == 0 else [f"schemathesis ended with status {done.returncode}"]
