"""Processes that build and measure: killed, closed, orphaned, too slow; what is left behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError, ModelError
from embedserve.models import installed
from embedserve.services.candidates import CandidateSearch
from embedserve.services.encoders import Encoders
from embedserve.services.model_library import ModelLibrary
from embedserve.services.models import PullRequest, pull_model
from embedserve.services.workshop import Workbench, Workshop
from embedserve.types import BatchTokens
from tests.candidate_tasks import MACHINE, MakeTask, children, search
from tests.tiny_models import ROOT, Exported

WAIT_S = 30


def test_candidate_whose_process_dies_is_refused_and_the_next_is_tried(
    make_task: MakeTask, workshop: Workshop
) -> None:
    before = children()

    def kill(stage: str) -> None:
        if stage.startswith("building int4"):
            threading.Timer(0.2, kill_all).start()

    def kill_all() -> None:
        for child in children() - before:
            os.kill(child, signal.SIGKILL)

    task = make_task(recipes=(("int4",), ("fp32",)))
    chosen = CandidateSearch(task, workshop, kill).run()
    assert chosen.recipe == "fp32"
    verdicts = {one.recipe: one.verdict for one in chosen.candidates}
    assert re.match(r"refused: The process for `\w+` was killed", verdicts["int4"])


def test_search_ends_with_its_workshop(make_task: MakeTask, workshop: Workshop) -> None:
    stages = list[str]()

    def close(stage: str) -> None:
        stages.append(stage)
        if stage.startswith("building"):
            threading.Timer(0.2, workshop.close).start()

    task = make_task(recipes=(("int4",), ("fp32",)))
    with pytest.raises(ModelError, match=r"was killed|was stopped"):
        CandidateSearch(task, workshop, close).run()
    assert len([stage for stage in stages if stage.startswith("building")]) == 1


def test_a_killed_workbench_is_an_error_that_says_so(
    make_task: MakeTask, workshop: Workshop
) -> None:
    before = children()

    def kill(stage: str) -> None:
        if stage.startswith("building"):
            # The next question finds it gone.
            threading.Timer(0.2, kill_all).start()

    def kill_all() -> None:
        for child in children() - before:
            os.kill(child, signal.SIGKILL)

    with pytest.raises(ModelError, match=r"was killed. If nobody did that, memory ran out"):
        CandidateSearch(make_task(), workshop, kill).run()
    assert children() == before


def test_a_killed_workbench_leaves_nothing_behind_and_the_next_pull_works(
    exported: dict[str, Exported], workshop: Workshop, tmp_path: Path
) -> None:
    request = PullRequest(
        "tiny", exported["bert-ready"].folder / "checkpoint", recipe="fp32", engine="onnxruntime"
    )
    before, has_killed = children(), threading.Event()

    def progress(stage: str, done: int | None, total: int | None) -> None:
        if stage == "measuring speed" and not has_killed.is_set():
            has_killed.set()
            for child in children() - before:
                os.kill(child, signal.SIGKILL)

    def pull() -> None:
        pull_model(
            request,
            models_folder=tmp_path,
            workshop=workshop,
            machine=MACHINE,
            progress=progress,
        )

    with pytest.raises(ModelError, match=r"The process for `speed` was killed"):
        pull()
    assert installed.list_installed(tmp_path) == []
    assert list((tmp_path / ".staging").iterdir()) == []
    pull()
    assert installed.resolve(tmp_path, "tiny").manifest.recipe == "fp32"


def test_closing_the_library_ends_measuring_too(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    encoders = Encoders(tmp_path, scheduler, device="cpu")
    library = ModelLibrary(tmp_path, encoders, MACHINE)
    is_measuring, before = threading.Event(), children()
    pull = library.start_pull(
        PullRequest("tiny", exported["bert-ready"].folder / "checkpoint", recipe="fp32"),
        lambda stage, done, total: is_measuring.set() if stage.startswith("measuring s") else None,
    )
    assert is_measuring.wait(WAIT_S)
    started = time.monotonic()
    library.close()
    # Measuring alone would take seconds.
    assert time.monotonic() - started < 2
    assert isinstance(pull.exception(WAIT_S), EmbedserveError)
    assert children() == before
    assert list((tmp_path / ".staging").iterdir()) == []
    scheduler.close()


def test_a_closed_workshop_lends_nothing(make_task: MakeTask) -> None:
    workshop = Workshop()
    workshop.close()
    with pytest.raises(ModelError, match="was stopped"):
        search(make_task(), workshop)


def test_a_workbench_that_takes_too_long_is_ended() -> None:
    # Its start alone takes longer.
    bench, started = Workbench(limit_s=0.05), time.monotonic()
    with pytest.raises(ModelError, match=r"for `machine` was ended, as it took longer than 0.05 s"):
        bench.ask("machine")
    assert time.monotonic() - started < WAIT_S
    bench.close()


# Asks for a measurement of ten minutes, and says when it has begun.
_BUSY = """
import sys
from pathlib import Path
from embedserve.services.workshop import LoadedModel, Workbench
from embedserve.types import EncoderSpec

folder = Path(sys.argv[1])
spec = EncoderSpec("a", folder / "reference.onnx", folder / "tokenizer.json", 64, 32)
model = LoadedModel(Workbench(), spec, "embedding", device="cpu", threads=1)
model.speed("16", 0.01)
print("begun", flush=True)
model.speed("16", 600)
"""


def test_a_busy_workbench_ends_soon_after_its_parent(exported: dict[str, Exported]) -> None:
    command = [sys.executable, "-c", _BUSY, str(exported["bert-mean"].folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        [bench] = [Path(f"/proc/{child}/stat") for child in task.read_text("ascii").split()]
        time.sleep(0.5)  # so that it measures and does not read its input
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    deadline = time.monotonic() + 10
    while _is_running(bench):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(stat: Path) -> bool:
    try:
        return stat.read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
