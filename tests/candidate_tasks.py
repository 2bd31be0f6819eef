"""Tasks for the search of candidates on tiny models, and the processes that it starts."""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedserve.services.candidates import CandidateSearch, Chosen, Task
from embedserve.services.models import Machine
from embedserve.services.workshop import Workshop
from tests.tiny_models import Exported

# Its vectors keep their neighbours well enough under int8, for weights at random.
FAITHFUL = "bert-mean"
MACHINE = Machine("cpu", 1, round_seconds=0.01)

MakeTask = Callable[..., Task]


def tasks_of(exported: dict[str, Exported], scratch: Path) -> MakeTask:
    """Return what makes a task on a copy of a tiny model, for recipes, engines and machines."""

    def make(name: str = FAITHFUL, **changes: object) -> Task:
        model = exported[name]
        folder = scratch / "task"
        folder.mkdir()
        for file in ("reference.onnx", "tokenizer.json"):
            shutil.copyfile(model.folder / file, folder / file)
        given: dict[str, object] = {
            "recipes": (("fp32",),),
            "engines": ("onnxruntime",),
            **changes,
        }
        of_machine = {key: given.pop(key) for key in ("cpu_info", "engine_facts") if key in given}
        return Task(
            folder=folder,
            kind=model.facts.kind,
            max_tokens=model.facts.max_tokens,
            dimensions=model.facts.dimensions,
            pad_token_id=model.facts.pad_token_id,
            machine=replace(MACHINE, **of_machine),  # type: ignore[arg-type]
            **given,  # type: ignore[arg-type]
        )

    return make


def search(task: Task, workshop: Workshop) -> Chosen:
    """Return what a search finds, untold of its stages."""
    return CandidateSearch(task, workshop, lambda stage: None).run()


def children() -> set[int]:
    """Return the processes that this one has started and not yet seen the end of."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has ended, and had none left
            found |= set(map(int, (thread / "children").read_text("ascii").split()))
    return found
