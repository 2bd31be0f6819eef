"""The models folder: what is installed, and how a model comes and goes whole.

<models>/<host>/<namespace>/<model>/<tag>/{manifest.json, model.onnx, tokenizer.json}
<models>/.staging/<name>/             pulls in progress; nothing there is installed
<models>/.locks/<name>                one lock for each name
"""

import fcntl
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from embedserve.errors import ConflictError, InvalidNameError, ModelError, ModelNotFoundError
from embedserve.models import manifest as manifests
from embedserve.models.library import find_known, spellings
from embedserve.models.manifest import MANIFEST_FILE, Manifest
from embedserve.models.names import ModelName, parse_name, split_recipe

logger = logging.getLogger(__name__)

_STAGING = ".staging"
_LOCKS = ".locks"
_REPLACED = "replaced"


@dataclass(frozen=True)
class InstalledModel:
    """A model on disk with its manifest read; `manifest.verify` checks its files."""

    name: ModelName
    folder: Path
    manifest: Manifest
    modified_at: str
    """RFC 3339, UTC."""
    size_bytes: int


def list_installed(models_folder: Path) -> list[InstalledModel]:
    """List what is installed, newest first; a broken manifest is logged and left out."""
    found = []
    for name, folder in _complete_folders(models_folder):
        try:
            found.append(_read(name, folder))
        except ModelNotFoundError:
            continue  # removed since the folders were listed
        except ModelError as error:
            logger.warning("%s", error)
    return sorted(found, key=lambda model: model.modified_at, reverse=True)


def resolve(models_folder: Path, name: str) -> InstalledModel:
    """Find an installed model by any spelling, letter case or library alias of its name.

    A tag that ends in a precision is answered from that precision alone, any other never from such
    a tag. Raises ModelNotFoundError, which names the precisions that are there, and ModelError
    for a broken manifest.
    """
    wanted = parse_name(name)
    row = find_known(wanted)
    folders = {found.key: (found, folder) for found, folder in _complete_folders(models_folder)}
    recipe = split_recipe(wanted.tag)[1]
    for candidate in (wanted, *(spellings(row, recipe) if row else ())):
        if candidate.key in folders:
            with suppress(ModelNotFoundError):  # removed since the folders were listed
                return _read(*folders[candidate.key])
            del folders[candidate.key]
    same = (found.display for found, _ in folders.values() if _is_same_model(found, wanted))
    raise ModelNotFoundError(name, installed=sorted(same))


def copy(models_folder: Path, source: str, target: str) -> InstalledModel:
    """Install a model under another name as well, with files of its own; return the copy.

    Whatever had that name is replaced. Raises ModelNotFoundError, ConflictError while one of the
    two is being pulled or removed, and InvalidNameError for a tag of another precision.
    """
    model = resolve(models_folder, source)
    if model.name.key == parse_name(target).key:
        return model
    return derive(models_folder, source, target)


def derive(
    models_folder: Path,
    source: str,
    target: str,
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> InstalledModel:
    """Install the files of a model under another name with a changed manifest; see `copy`.

    Raises ConflictError too where both names are one.
    """
    model, wanted = resolve(models_folder, source), parse_name(target)
    if model.name.key == wanted.key:
        raise ConflictError(
            f"`{wanted.display}` would replace the model that it is made from. Choose another name."
        )
    recipe = split_recipe(wanted.tag)[1]
    if recipe not in (None, model.manifest.recipe):
        raise InvalidNameError(
            f"The tag of `{wanted.display}` says `{recipe}`, but `{model.name.display}` is "
            f"`{model.manifest.recipe}`. Choose another tag."
        )
    with (
        lock(models_folder, model.name, is_patient=False),
        lock(models_folder, wanted, is_patient=False),
    ):
        model = resolve(models_folder, source)  # as it is now that nobody changes it
        with staging(models_folder, wanted) as staged:
            for file in model.manifest.files:
                link_or_copy(model.folder / file, staged / file)
            manifests.write(staged, replace(change(model.manifest), name=wanted.display))
            return install(models_folder, wanted, staged)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or where the file system cannot, a second file."""
    try:
        # Files of a model are never written again, only replaced: sharing them is safe.
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def disk_bytes(models_folder: Path) -> int:
    """Count the bytes of all files there, those that several names share once."""
    sizes = {}
    # A pull clears up behind itself: folders (which `walk` passes over) and files may be gone.
    for folder, _, names in os.walk(models_folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(status.st_mode):
                    sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def remove(models_folder: Path, name: str) -> None:
    """Delete the model of exactly that name (no alias).

    Raises ModelNotFoundError, and ConflictError while somebody installs it.
    """
    wanted = parse_name(name)
    with lock(models_folder, wanted, is_patient=False):
        folder = folder_of(models_folder, wanted)
        if not (folder / MANIFEST_FILE).is_file():
            raise ModelNotFoundError(name)
        # Out of sight in one step: nobody ever sees half a model.
        with staging(models_folder, wanted) as doomed:
            folder.rename(doomed / "removed")
        for parent in list(folder.parents)[:3]:
            with suppress(OSError):
                parent.rmdir()


def folder_of(models_folder: Path, name: ModelName) -> Path:
    """Return where `name` is installed, in the spelling it has on disk, or is to be installed."""
    for found, folder in _complete_folders(models_folder):
        if found.key == name.key:
            return folder
    return models_folder / name.host / name.namespace / name.model / name.tag


@contextmanager
def lock(models_folder: Path, name: ModelName, *, is_patient: bool = True) -> Iterator[None]:
    """Wait until nobody else installs or removes `name`, in this process or another.

    Without patience, raise ConflictError instead of waiting.
    """
    path = models_folder / _LOCKS / _flat(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConflictError(
                f"Model `{name.display}` is being pulled or removed; try again when that is done."
            ) from None
        yield


@contextmanager
def staging(models_folder: Path, name: ModelName) -> Iterator[Path]:
    """Give a fresh empty folder to build `name` in; needs the lock of `name`.

    What is still in it at the end is deleted. Whatever lies in the staging of `name` at the start
    was left by a process that died, and is cleaned up too.
    """
    place = models_folder / _STAGING / _flat(name)
    _clear(place, folder_of(models_folder, name))
    # A new name each time: an orphan of the dead process cannot write into our folder.
    fresh = place / uuid.uuid4().hex
    fresh.mkdir(parents=True)
    try:
        yield fresh
    finally:
        _clear(place, folder_of(models_folder, name))


def install(models_folder: Path, name: ModelName, staged: Path) -> InstalledModel:
    """Move a finished folder into its place, replacing an older model; needs the lock of `name`."""
    folder = folder_of(models_folder, name)
    replaced = staged.parent / _REPLACED
    if folder.exists():
        folder.rename(replaced)
    _move(staged, folder)
    return _read(name, folder)


def _move(folder: Path, place: Path) -> None:
    """Rename a folder; `remove` may take away the parents of its place, as long as they are empty.

    Each failure is the end of another removal, so that this comes to an end as well.
    """
    while True:
        with suppress(FileNotFoundError):
            place.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(place)
            return
        os.stat(folder)  # gone itself: that is no such race


def _is_same_model(found: ModelName, wanted: ModelName) -> bool:
    """Tell whether two names differ in nothing but their precision."""
    row = find_known(wanted)
    if row is not None:
        return find_known(found) is row
    keys = [(*name.key[:3], split_recipe(name.key[3])[0]) for name in (found, wanted)]
    return keys[0] == keys[1]


def _clear(place: Path, folder: Path) -> None:
    """Empty a staging place, after undoing an install that died between its two renames."""
    replaced = place / _REPLACED
    if replaced.exists() and not folder.exists():
        _move(replaced, folder)
    shutil.rmtree(place, ignore_errors=True)


def _complete_folders(models_folder: Path) -> Iterator[tuple[ModelName, Path]]:
    """Give the folders that have a manifest, by name; others come and go meanwhile."""
    folders = [models_folder]
    for _ in ("host", "namespace", "model", "tag"):
        folders = [inner for folder in folders for inner in _folders_in(folder)]
    for folder in sorted(folders):
        host, namespace, model, tag = folder.relative_to(models_folder).parts
        with suppress(InvalidNameError):
            name = parse_name(f"{host}/{namespace}/{model}:{tag}")
            if (folder / MANIFEST_FILE).is_file():
                yield name, folder


def _folders_in(folder: Path) -> list[Path]:
    """List the folders in one, which may be gone; those that begin with a dot name no model.

    `Path.glob` would fail on a folder that is removed while it looks.
    """
    # Nor is one that nobody else may read: the root of a disk has its `lost+found`.
    passed_over = suppress(FileNotFoundError, NotADirectoryError, PermissionError)
    with passed_over, os.scandir(folder) as entries:
        return [folder / one.name for one in entries if one.name[0] != "." and one.is_dir()]
    return []


def _read(name: ModelName, folder: Path) -> InstalledModel:
    """Describe a model by its manifest; see `manifests.read`."""
    manifest = manifests.read(folder, name.display)
    size = sum(digest.size_bytes for digest in manifest.files.values())
    return InstalledModel(name, folder, manifest, manifest.created_at, size)


def _flat(name: ModelName) -> str:
    # `--` may occur in a part, `,` may not: different names never share a file.
    return ",".join(name.key)
