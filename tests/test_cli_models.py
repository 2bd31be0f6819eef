"""The commands about models, with and without a running server."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from embedserve.cli.pull_display import why_chosen
from embedserve.models import installed, manifest
from tests.hub_double import HubDouble, files_of
from tests.live import LiveServer
from tests.test_cli import GUIDE, run
from tests.tiny_models import Exported


def test_ingest_and_query_without_a_server(home: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "guide.md").write_text(GUIDE, encoding="utf-8")
    done = run("ingest", str(documents), "--index", "notes", home=home)
    assert done.returncode == 0, done.stderr
    assert "succeeded: 1 added; 1 chunks embedded" in done.stdout
    asked = run("query", "How do I change the port?", "--index", "notes", home=home)
    assert asked.returncode == 0, asked.stderr
    assert "1. Guide > Port" in asked.stdout
    assert "--port 11435" in asked.stdout
    assert str(documents / "guide.md") in asked.stdout
    assert "\x1b[" not in asked.stdout
    again = run("ingest", str(documents), "--index", "notes", "--json", home=home)
    assert json.loads(again.stdout)["counts"] == {"unchanged": 1}


def test_models_are_listed_shown_and_used(home: Path, server: LiveServer) -> None:
    listed = run("list", home=home)
    assert "all-minilm:latest" in listed.stdout
    assert "on disk" in listed.stdout
    shown = run("show", "all-minilm", home=server.home)
    assert "cosine to fp32, mean" in shown.stdout
    assert "Chosen: the fastest" in shown.stdout or "Chosen: the only" in shown.stdout
    assert "canary      exact" in shown.stdout
    card = json.loads(run("show", "all-minilm", "--fidelity", "--json", home=server.home).stdout)
    assert card["fidelity"]["cosine_mean"] > 0.9985
    assert card["below_gate"] == []
    short = run("embed", "one", "--dimensions", "3", home=server.home)
    assert len(short.stdout.split()) == 3
    assert "was not trained for 3 dimensions" in short.stderr
    too_long = run("embed", "one", "--dimensions", "5000", home=server.home)
    assert too_long.returncode != 0
    assert "has 384 dimensions; ask for 1 to 384" in too_long.stderr
    embedded = run("embed", "--json", home=server.home, stdin="one\ntwo\n")
    assert len(json.loads(embedded.stdout)["embeddings"]) == 2


@pytest.fixture
def checkpoint(exported: dict[str, Exported]) -> Path:
    """A checkpoint of a few kilobytes with a graph that is ready: what else a pull does is left."""
    return exported["bert-ready"].folder / "checkpoint"


def test_server_pulls_with_the_options_of_the_command(
    quick_models: Path, checkpoint: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(quick_models, home / "models")
    with HubDouble({"org/tiny": files_of(checkpoint)}) as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        with LiveServer(home, settings=settings):
            pull_and_use(home, "hf.co/org/tiny")


def pull_and_use(home: Path, name: str) -> None:
    folder = run("pull", "x", "--from", str(home), home=home)
    assert folder.returncode == 1
    assert "Stop it for `--from`" in folder.stderr
    options = ["--recipe", "fp32", "--engine", "onnxruntime", "--max-tokens", "32"]
    done = run("pull", name, *options, home=home)
    assert done.returncode == 0, done.stderr
    assert "fp32 on onnxruntime" in done.stdout
    assert "nothing else was tried" in done.stdout
    assert done.stderr.count("exporting") == 1
    facts = json.loads(run("show", name, "--json", home=home).stdout)["embedserve"]
    assert (facts["max_tokens"], facts["engine"]) == (32, "onnxruntime")
    listed = json.loads(run("list", "--json", home=home).stdout)
    assert len(listed["models"]) == 2  # side by side
    assert listed["embedserve"]["disk_bytes"] == installed.disk_bytes(home / "models")
    assert run("copy", name, "mine", home=home).returncode == 0
    assert run("rm", "mine", home=home).returncode == 0


def test_verify_tells_a_card_that_is_not_true(checkpoint: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    options = ["--from", str(checkpoint), "--recipe", "fp32", "--engine", "onnxruntime"]
    pulled = run("pull", "tiny", *options, home=home)
    assert pulled.returncode == 0, pulled.stderr
    model = installed.resolve(home / "models", "tiny")
    told = replace(model.manifest.fidelity, top10_overlap=0.5)
    manifest.write(model.folder, replace(model.manifest, fidelity=told))
    done = run("verify", "tiny", home=home)
    assert done.returncode == 1
    assert "top10 overlap is" in done.stderr
    assert "MEASURED HERE" in done.stdout
    assert run("verify", "nope", home=home).returncode == 3


def test_pull_says_why_it_chose() -> None:
    def told(*verdicts: str) -> str:
        tried = [
            {"verdict": verdict, "tokens_per_s_mixed": None if "refused" in verdict else 1.0}
            for verdict in verdicts
        ]
        return why_chosen({"candidates": tried})

    assert told("installed") == "nothing else was tried"
    assert told("installed", "slower", "refused: a") == "the fastest of 2 that passed (3 tried)"
    assert told("installed", "refused: a") == "the only one of 2 tried that passed"
    below = told("installed, below its gate: a", "slower, below its gate: b")
    assert below == "nothing that was tried passed (2 tried)"
