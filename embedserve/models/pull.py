"""Find a checkpoint: in a folder, in an installed package, or on the model hub.

Of a repository only weights in safetensors or ONNX, JSON and vocabulary files are fetched; code
and pickles never are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from embedserve.errors import ModelError, NotFoundError
from embedserve.models.hub import Address, HubOptions, Progress, fetch
from embedserve.models.library import KnownModel, find_known, library
from embedserve.models.names import DEFAULT_TAG, HUB_HOST, ModelName, split_recipe
from embedserve.models.weights import (
    ONNX_FIRST,
    READY_ONNX,
    SAFETENSORS_FIRST,
    WEIGHTS,
    digest_weights,
    weights_among,
    weights_in,
)

_TEXTS = (".json", ".txt")
_VOCABULARIES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
# Modules of sentence-transformers have folders such as `1_Pooling`.
_MODULE = re.compile(r"[0-9]+_[A-Za-z]+")
_MODULE_FILES = ("config.json", WEIGHTS)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a checkpoint, and where it is from."""

    folder: Path
    source: str
    revision: str
    """Commit on the hub, or version of the package; empty for a folder."""
    weights_sha256: str
    """Of the safetensors, or of the ONNX file followed by its external data."""
    onnx_path: Path | None = None
    """The ready graph that is to be used; None: the safetensors in `folder` are."""


def ignore_progress(stage: str, done: int | None, total: int | None) -> None:
    """Take progress and do nothing with it."""


def locate(
    name: ModelName,
    source: Path | None,
    hub: HubOptions | None = None,
    *,
    progress: Progress = ignore_progress,
    is_onnx_preferred: bool = True,
) -> Checkpoint:
    """Find the checkpoint of `name`: `source` if given, else the package, else the hub.

    On the hub a ready ONNX file goes before safetensors if `is_onnx_preferred`; in a folder it
    does not, because it may be older than the weights beside it. Raises ModelError that says what
    to do when there is no checkpoint or its weights are not the right ones. What else may be
    missing in it is not judged here.
    """
    row = find_known(name)
    if source is not None:
        found = _in_folder(source.expanduser().resolve(), f"folder {source}", revision="")
    elif row and (bundled := _in_package(row)):
        found = bundled
    else:
        forms = _forms(row, is_onnx_preferred)
        found = _on_hub(_address(name, row), forms, hub or HubOptions(), progress)
        if found.onnx_path:
            return found  # the row has the digest of the safetensors only; the hub's was checked
    if row and row.weights_sha256 and found.weights_sha256 != row.weights_sha256:
        raise ModelError(
            f"The weights from {found.source} are not those of `{name.display}`: sha256 "
            f"{found.weights_sha256[:12]} instead of {row.weights_sha256[:12]}. "
            "Fetch them again, or pull them under a name of their own."
        )
    return found


def _in_package(row: KnownModel) -> Checkpoint | None:
    # find_spec looks without importing: the package imports a training stack when it is used.
    spec = find_spec(row.bundled_package) if row.bundled_package else None
    if spec is None or not spec.submodule_search_locations or not row.bundled_package:
        return None
    try:
        revision = version(row.bundled_package)
    except PackageNotFoundError:
        revision = ""
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return _in_folder(folder, f"package {row.bundled_package}", revision)


def _in_folder(folder: Path, source: str, revision: str) -> Checkpoint:
    weights = weights_in(folder, f"`{folder}` ({source})")
    return _checkpoint(folder, weights, source, revision)


def _address(name: ModelName, row: KnownModel | None) -> Address:
    if row:
        return Address(row.repository, row.revision or "main")
    if name.host == HUB_HOST:
        tag, _ = split_recipe(name.tag)
        revision = "main" if tag.lower() == DEFAULT_TAG else tag
        return Address(f"{name.namespace}/{name.model}", revision)
    near = get_close_matches(name.model.lower(), sorted({row.name for row in library()}), n=3)
    guess = f" Did you mean {' or '.join(f'`{one}`' for one in near)}?" if near else ""
    raise NotFoundError(
        f"Model `{name.display}` is not in the library (docs/models.md lists it).{guess} Any other "
        f"encoder is pulled as `{HUB_HOST}/organisation/model`, or from a folder with `--from`."
    )


def _forms(row: KnownModel | None, is_onnx_preferred: bool) -> tuple[str, ...]:
    """Return the files that may hold the weights on the hub, the best first."""
    if row and row.needs_ready_onnx:
        return READY_ONNX
    return ONNX_FIRST if is_onnx_preferred else SAFETENSORS_FIRST


def _on_hub(
    address: Address, forms: Sequence[str], hub: HubOptions, progress: Progress
) -> Checkpoint:
    def choose(names: Sequence[str]) -> list[str]:
        # Weights last: where they are, the rest is.
        return [*filter(_is_wanted, names), *weights_among(names, forms, str(address))]

    snapshot = fetch(address, choose, hub, progress)
    names = [
        path.relative_to(snapshot.folder).as_posix()
        for path in snapshot.folder.rglob("*")
        if path.is_file()
    ]
    weights = weights_among(names, forms, str(address))
    source = f"{HUB_HOST}/{address.repository}"
    return _checkpoint(snapshot.folder, weights, source, snapshot.commit)


def _is_wanted(name: str) -> bool:
    """Return whether a file describes the checkpoint: at the root or in a module's folder."""
    folder, _, file = name.rpartition("/")
    if folder:
        return bool(_MODULE.fullmatch(folder)) and file in _MODULE_FILES
    return file.endswith(_TEXTS) or file in _VOCABULARIES


def _checkpoint(folder: Path, weights: Sequence[str], source: str, revision: str) -> Checkpoint:
    main = weights[-1]
    onnx_path = None if main == WEIGHTS else folder / main
    return Checkpoint(folder, source, revision, digest_weights(folder, weights), onnx_path)
