"""Dockerfile and docker-compose.yml, as far as they can be checked without an engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml  # type: ignore[import-untyped]

from embedserve.settings import PREFIX, Settings
from tests.fakes import answering

ROOT = Path(__file__).parent.parent
EXPORT_ONLY = ("torch", "transformers", "optimum", "sentence-transformers", "[")


class Instruction(NamedTuple):
    """One instruction of the Dockerfile; stages count from 0."""

    stage: int
    word: str
    rest: str


def dockerfile() -> list[Instruction]:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found, stage = [], -1
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage, word, " ".join(rest.split())))
    return found


RUNTIME = max(instruction.stage for instruction in dockerfile())


def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return cast(dict[str, Any], yaml.safe_load(text))


def only(word: str, stage: int = RUNTIME) -> str:
    """Return the one instruction of this kind in a stage."""
    [found] = [item.rest for item in dockerfile() if (item.stage, item.word) == (stage, word)]
    return found


def environment(stage: int = RUNTIME) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", only("ENV", stage)))


def exec_form(instruction: str) -> list[str]:
    return cast(list[str], json.loads(instruction[instruction.index("[") :]))


def settings_of(variables: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }


def test_every_image_is_pinned() -> None:
    bases = [item.rest.split()[0] for item in dockerfile() if item.word == "FROM"]
    images = bases + [service["image"] for service in compose()["services"].values()]
    assert len(bases) == 2
    for image in images:
        _, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+", tag), f"{image} is not pinned to a version"


def test_chroma_server_and_client_are_the_same_release() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    image = compose()["services"]["chroma"]["image"]
    assert f"chromadb=={image.partition(':')[2]}" in constraints


def test_runtime_stage_installs_no_training_stack() -> None:
    installs = [
        item.rest for item in dockerfile() if item.stage == RUNTIME and "pip install" in item.rest
    ]
    assert installs
    for command in installs:
        assert not [word for word in EXPORT_ONLY if word in command], command
        assert "--constraint constraints.txt" in command


def test_settings_in_both_files_exist_and_hold() -> None:
    values = settings_of(environment())
    values |= settings_of(compose()["services"]["embedserve"]["environment"])
    assert {"host", "home", "definitions", "ingest_roots", "chroma_url"} <= set(values)
    assert set(values) <= set(Settings.model_fields)
    settings = Settings(**cast(dict[str, Any], values))
    assert settings.host == "0.0.0.0"
    # Two documents at once, and the server, stay within the container's memory.
    needed = settings.extract_workers * settings.extract_memory_bytes
    assert compose()["services"]["embedserve"]["mem_limit"] == "3g"
    assert needed <= 2 * 1024**3
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "docker-compose.yml").read_text()
    named = {name.lower() for name in re.findall(rf"{PREFIX}(\w+)", text)}
    assert named <= set(Settings.model_fields)


def test_server_runs_as_the_user_that_owns_its_home() -> None:
    user = only("USER")
    uid, _, gid = user.partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    made = " ".join(item.rest for item in dockerfile() if item.word == "RUN")
    assert f"--uid {uid}" in made
    assert f"chown {user} {environment()['EMBEDSERVE_HOME']}" in made
    assert only("STOPSIGNAL") == "SIGTERM"


def test_only_embedserve_is_published_and_on_loopback() -> None:
    services = compose()["services"]
    assert services["embedserve"]["ports"] == ["127.0.0.1:11434:11434"]
    assert "ports" not in services["chroma"]
    assert services["chroma"]["networks"] == ["back"]
    assert compose()["networks"]["back"]["internal"] is True


def test_containers_have_few_rights_and_bounds() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["restart"] == "unless-stopped", name


def test_everything_but_the_home_is_mounted_read_only() -> None:
    volumes = compose()["services"]["embedserve"]["volumes"]
    writable = [volume for volume in volumes if not volume.endswith(":ro")]
    assert writable == ["data:/data"]
    mounted = [volume.removesuffix(":ro").rpartition(":")[2] for volume in volumes]
    settings = settings_of(environment())
    assert {settings["home"], settings["definitions"], settings["ingest_roots"]} <= set(mounted)


def test_embedserve_waits_for_a_healthy_chroma_at_its_own_address() -> None:
    service = compose()["services"]["embedserve"]
    assert service["depends_on"] == {"chroma": {"condition": "service_healthy"}}
    assert service["environment"]["EMBEDSERVE_CHROMA_URL"] == "http://chroma:8000"


def test_build_context_holds_all_that_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for item in dockerfile():
        if item.word == "COPY" and not item.rest.startswith("--from"):
            copied |= set(item.rest.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def run_entrypoint(home: Path, models: Path, tools: Path) -> str:
    """Run the image's entry point with a program that prints its arguments as `embedserve`."""
    program = tools / "embedserve"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    command = [
        part.replace("/opt/embedserve/models", str(models))
        for part in exec_form(only("ENTRYPOINT"))
    ]
    search = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, "serve", "--refresh"],
        env={"PATH": search, "EMBEDSERVE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


def test_entrypoint_seeds_an_empty_home_and_leaves_a_used_one_alone(tmp_path: Path) -> None:
    models, home, tools = (tmp_path / name for name in ("image", "home", "tools"))
    for folder in (models / "name", home / "models.new", tools):  # a copy that was cut off
        folder.mkdir(parents=True)
    (models / "name" / "manifest.json").write_text("new")
    assert run_entrypoint(home, models, tools) == "serve --refresh"
    assert (home / "models" / "name" / "manifest.json").read_text() == "new"
    assert not (home / "models.new").exists()
    (home / "models" / "name" / "manifest.json").write_text("mine")
    run_entrypoint(home, models, tools)
    assert (home / "models" / "name" / "manifest.json").read_text() == "mine"


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_health_check_follows_ready(status: int, is_healthy: bool) -> None:
    [_, *arguments] = exec_form(only("HEALTHCHECK"))
    with answering(status, b"{}") as url:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"EMBEDSERVE_PORT": url.rpartition(":")[2]},
            timeout=20,
            check=False,
        )
    assert (done.returncode == 0) is is_healthy


@pytest.mark.parametrize(
    ("body", "is_healthy"), [(b'{"nanosecond heartbeat":1}', True), (b"x", False)]
)
def test_chroma_health_check_needs_nothing_but_bash(body: bytes, is_healthy: bool) -> None:
    [kind, *command] = compose()["services"]["chroma"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert "$" not in command[-1]  # compose would replace it
    with answering(200, body) as url:
        port = url.rpartition(":")[2]
        here = [part.replace("/8000", f"/{port}") for part in command]
        done = subprocess.run(here, timeout=20, check=False)
    assert (done.returncode == 0) is is_healthy
