"""Files that do not hold still, cannot be read, or are made to do harm: each costs itself alone.

What the user is told of each is the table under `Faults` in docs/operations.md.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from embedserve.ingest.extract import CHANGED
from tests.faults import hostile_files
from tests.live import LiveServer, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names and rights as on Linux")

SETTINGS = {"EMBEDSERVE_EXTRACT_TIMEOUT_S": "5", "EMBEDSERVE_MAX_FILE_BYTES": "2000000"}
# Root may read everything, unless it gives that up.
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
RUNS = 20


@pytest.fixture(scope="module")
def faulted(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that file rights bind, with limits that small files reach."""
    folder = tmp_path_factory.mktemp("faulted")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    (folder / "documents").mkdir()
    prefix = AS_ANYBODY if os.geteuid() == 0 else ()
    if prefix and shutil.which(prefix[0]) is None:
        pytest.skip("NO SETPRIV: root may read everything, so nothing was checked on files")
    with LiveServer(
        folder / "home", allow=[folder / "documents"], settings=SETTINGS, prefix=prefix
    ) as server:
        yield server
    assert "Traceback" not in server.log(), server.log()


@pytest.fixture
def documents(faulted: LiveServer, request: pytest.FixtureRequest) -> Path:
    folder: Path = faulted.home.with_name("documents") / request.node.name
    folder.mkdir()
    (folder / "good.md").write_text("# Otters\n\nOtters hold hands while they sleep.\n")
    return folder


def results(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {Path(file["path"]).name: file for file in job["files"]}


def best(server: LiveServer, index: str, text: str) -> str:
    found: str = server.query(index, text, k=1)[0]["text"]
    return found


def test_hostile_files_cost_themselves_alone(faulted: LiveServer, documents: Path) -> None:
    (documents / "endless.pdf").write_bytes(hostile_files.endless_pdf())
    (documents / "circular.pdf").write_bytes(hostile_files.circular_pdf())
    (documents / "bomb.zip").write_bytes(hostile_files.zip_bomb())
    (documents / "deep.json").write_bytes(hostile_files.nested_json())
    hostile_files.sparse(documents / "huge.bin", 5 << 30)
    hostile_files.badly_named(documents)
    os.mkfifo(documents / "pipe.txt")
    command = [sys.executable, "-m", "embedserve", "ingest", str(documents), "--index", "hostile"]
    done = subprocess.run(
        [*command, "--home", str(faulted.home)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    job = faulted.http.get("/jobs?index=hostile").json()["jobs"][0]
    assert job["status"] == "succeeded_with_errors"
    found = results(faulted.http.get(f"/jobs/{job['id']}").json())
    told = {name: (file["outcome"], file["code"]) for name, file in found.items()}
    assert told == {
        "good.md": ("added", None),
        "deep.json": ("added", None),  # text like any other: nobody has to follow the brackets
        "endless.pdf": ("failed", "timed_out"),
        "circular.pdf": ("failed", "corrupt"),
        "bomb.zip": ("failed", "too_large"),
        "huge.bin": ("failed", "too_large"),
        r"caf\xe9.txt": ("failed", "bad_file_name"),
    }, "and a fifo is no file"
    assert all(file["message"] and file["hint"] for file in found.values() if file["code"])
    assert found["circular.pdf"]["message"].count("Parsing error") == 1
    for words in ("EMBEDSERVE_EXTRACT_TIMEOUT_S", "EMBEDSERVE_MAX_FILE_BYTES", "not valid UTF-8"):
        assert words in done.stderr
    assert faulted.http.get("/ready").status_code == 200
    assert "Otters" in best(faulted, "hostile", "What do otters do?")


def test_a_file_that_changes_while_it_is_read_is_told_and_read_again(
    faulted: LiveServer, documents: Path
) -> None:
    log, is_enough = documents / "grows.txt", Event()

    def write() -> None:
        with log.open("w") as file:
            while not is_enough.wait(0.001):
                file.write("A line about weather and nothing else.\n")
                file.flush()

    writer = Thread(target=write)
    writer.start()
    try:
        warned = any(
            CHANGED in results(faulted.ingest("grows", documents))["grows.txt"]["warnings"]
            for _ in range(RUNS)
        )
    finally:
        is_enough.set()
        writer.join()
    assert warned
    with log.open("a") as file:
        file.write("\nThe last line tells of a lighthouse keeper in Norway.\n")
    assert results(faulted.ingest("grows", documents))["grows.txt"] | {"chunks": 0} == {
        **dict.fromkeys(("code", "stage", "message", "hint", "retryable")),
        "path": str(log),
        "outcome": "updated",
        "chunks": 0,
        "warnings": [],
    }
    assert "lighthouse" in best(faulted, "grows", "Who keeps the lighthouse?")
    assert faulted.ingest("grows", documents)["counts"] == {"unchanged": 2}


def test_a_change_is_seen_though_the_clock_went_back(faulted: LiveServer, documents: Path) -> None:
    file = documents / "clock.txt"
    file.write_text("The meeting is on Monday.\n")
    faulted.ingest("clock", documents)
    file.write_text("The meeting is on Friday.\n")  # the same size
    os.utime(file, (10**9, 10**9))  # 2001
    assert faulted.ingest("clock", documents)["counts"] == {"updated": 1, "unchanged": 1}
    assert "Friday" in best(faulted, "clock", "When is the meeting?")
    assert faulted.ingest("clock", documents)["counts"] == {"unchanged": 2}


def test_what_may_not_be_read_any_more_keeps_its_former_version(
    faulted: LiveServer, documents: Path
) -> None:
    file, folder = documents / "secret.txt", documents / "inner"
    folder.mkdir()
    file.write_text("The code of the safe is 1234.\n")
    (folder / "kept.txt").write_text("Badgers dig their homes in the wood.\n")
    faulted.ingest("rights", documents)
    file.write_text("The code of the safe is 98765.\n")
    file.chmod(0)
    folder.chmod(0)
    try:
        job = faulted.ingest("rights", documents)
    finally:
        folder.chmod(0o700)
    found = results(job)
    for name in ("secret.txt", "inner"):
        assert (found[name]["outcome"], found[name]["code"]) == ("failed", "permission_denied")
        assert "right to read it" in found[name]["hint"]
        assert found[name]["retryable"]
    assert "1234" in best(faulted, "rights", "What is the code of the safe?")
    assert "Badgers" in best(faulted, "rights", "Where do badgers live?")
    file.chmod(0o600)
    assert faulted.ingest("rights", documents)["counts"] == {"updated": 1, "unchanged": 2}
    assert "98765" in best(faulted, "rights", "What is the code of the safe?")
