"""What a command loads: its own options, and never the parts of a house that a server runs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from embedserve.cli.app import COMMANDS, load
from embedserve.store.home_lock import HomeLock
from tests.live import environment
from tests.loopback_server import on_free_port, serving_on

HOUSE = {
    "chromadb", "fastapi", "huggingface_hub", "kreuzberg", "numpy", "onnx", "onnxruntime",
    "openvino", "optimum", "prometheus_client", "pypdf", "sentence_transformers", "starlette",
    "tokenizers", "torch", "transformers", "uvicorn",
}  # fmt: skip
TO_TALK = {"httpx", "pydantic_settings"}
ANSWERS: dict[str, object] = {
    "/health": {},
    "/api/tags": {"models": [], "embedserve": {"disk_bytes": 0}},
    "/jobs": {"jobs": []},
    "/indexes": {"indexes": []},
    "/indexes/default/query": {"warnings": [], "hits": [], "best_rejected": 0.1},
}


class Answering(BaseHTTPRequestHandler):
    """Answers as a server would that has nothing."""

    def do_GET(self) -> None:
        body = json.dumps(ANSWERS[self.path.partition("?")[0]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    with serving_on(on_free_port(Answering)) as url, HomeLock(home) as lock:
        lock.announce(url)
        yield home


def loaded_by(*arguments: str) -> set[str]:
    """Run a command and return the packages that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "embedserve", *arguments],
        env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    names = re.findall(r"import time:.*\|\s+([A-Za-z_][\w.]*)$", done.stderr, flags=re.MULTILINE)
    assert "embedserve.cli.app" in names, "the list of imports is there"
    return {name.partition(".")[0] for name in names}


def test_the_list_of_commands_loads_none_of_them() -> None:
    assert not loaded_by("--help") & (HOUSE | TO_TALK)


@pytest.mark.parametrize("command", ["ingest", "documents", "embed", "watch", "doctor", "env"])
def test_a_command_that_a_server_answers_knows_its_options_without_the_house(command: str) -> None:
    assert not loaded_by(command, "--help") & HOUSE


@pytest.mark.parametrize("command", ["list", "jobs list", "index list", "query question"])
def test_a_command_asks_a_running_server_without_the_house(served_home: Path, command: str) -> None:
    loaded = loaded_by(*command.split(), "--home", str(served_home))
    assert loaded >= TO_TALK, "it has read its settings and asked"
    assert not loaded & HOUSE


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_the_command_says_of_itself(name: str) -> None:
    command = load(name)
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == COMMANDS[name].summary
