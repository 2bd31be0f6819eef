"""Checkpoints with all that is known of them: from the user, the library and their own files."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedserve.models.checkpoint import Facts, Overrides, read_facts
from embedserve.models.hub import Progress
from embedserve.models.library import KnownModel, find_known
from embedserve.models.names import ModelName
from embedserve.models.pull import Checkpoint, locate


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint, and how it is to be exported."""

    checkpoint: Checkpoint
    facts: Facts
    row: KnownModel | None
    """What the library knows of it."""
    overrides: Overrides
    """What goes before the checkpoint's own files."""


def find_checkpoint(
    name: ModelName, source: Path | None, told: Overrides, progress: Progress
) -> FoundCheckpoint:
    """Find the checkpoint of a model; see `models.pull.locate`, `models.checkpoint.read_facts`.

    What the user says goes before the library, and that before the files.
    """
    row = find_known(name)
    checkpoint = locate(name, source, progress=progress, is_onnx_preferred=not told.ignores_onnx)
    overrides = _overrides(told, checkpoint, row)
    return FoundCheckpoint(checkpoint, read_facts(checkpoint.folder, overrides), row, overrides)


def _overrides(told: Overrides, checkpoint: Checkpoint, row: KnownModel | None) -> Overrides:
    told = replace(told, ignores_onnx=checkpoint.onnx_path is None)
    if row is None:
        return told
    known = Overrides(row.pooling, row.max_tokens, row.query_prompt, row.document_prompt)
    given = {name: value for name, value in asdict(told).items() if value is not None}
    return replace(known, **given)
