"""The manifest: what an installed model is, where it came from, and what its files must be.

It is written last, so a folder that has one is complete. Its bytes are canonical JSON: one line,
sorted keys (read it with `python -m json.tool`).
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from embedserve.errors import ModelError
from embedserve.models.checkpoint import Architecture
from embedserve.models.fidelity import FidelityCard

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
MODEL_FILES = (ONNX_FILE, TOKENIZER_FILE)


@dataclass(frozen=True)
class FileDigest:
    """What the bytes of one file must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Canary:
    """A text and the vector that this model gave it when it was installed."""

    text: str
    vector: tuple[float, ...]
    """(dimensions,) float32 values."""


@dataclass(frozen=True)
class Manifest:
    """One installed model. Lengths are in tokens, special tokens included."""

    format_version: int
    name: str
    source: str
    """Where the checkpoint came from: a package, a folder or a repository of the hub."""
    revision: str
    """Commit or version of the source; empty for a folder."""
    weights_sha256: str
    """sha256 of the checkpoint's `model.safetensors`."""
    licence: str
    """SPDX identifier; empty when not known."""
    family: str
    architecture: Architecture
    pooling: str
    max_tokens: int
    dimensions: int
    query_prompt: str
    document_prompt: str
    recipe: str
    files: dict[str, FileDigest]
    canary: Canary
    fidelity: FidelityCard
    created_at: str
    """RFC 3339, UTC."""

    @property
    def artefact(self) -> str:
        """64 hex digits: the same whenever the same texts give the same vectors.

        Two exports of one checkpoint share it as long as their files have the same bytes.
        """
        return _sha256(
            _canonical(
                {
                    "files": {name: self.files[name].sha256 for name in MODEL_FILES},
                    "max_tokens": self.max_tokens,
                    "query_prompt": self.query_prompt,
                    "document_prompt": self.document_prompt,
                }
            )
        )

    @property
    def digest(self) -> str:
        """64 hex digits: sha256 of the manifest file."""
        return _sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return _canonical(asdict(self))


_ADAPTER = TypeAdapter(Manifest)


def read(folder: Path, name: str) -> Manifest:
    """Read the manifest of model `name`; raise ModelError for one that this version cannot use."""
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise _broken(
                name, f"`{path}` has format {version}, this version reads {FORMAT_VERSION}"
            )
        manifest = _ADAPTER.validate_python(content)
    except OSError as error:
        raise _broken(name, f"`{path}` cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        first = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise _broken(name, f"`{path}` is not a manifest ({first})") from error
    if set(manifest.files) != set(MODEL_FILES):
        raise _broken(name, f"`{path}` does not list {' and '.join(MODEL_FILES)}")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its digest; raise ModelError that names the one that differs."""
    for file_name, expected in manifest.files.items():
        path = folder / file_name
        try:
            found = digest_file(path)
        except OSError as error:
            raise _broken(manifest.name, f"`{path}` cannot be read: {error.strerror}") from error
        if found.size_bytes != expected.size_bytes:
            reason = f"`{path}` has {found.size_bytes} bytes instead of {expected.size_bytes}"
            raise _broken(manifest.name, reason)
        if found.sha256 != expected.sha256:
            reason = f"`{path}` has sha256 {found.sha256[:12]} instead of {expected.sha256[:12]}"
            raise _broken(manifest.name, reason)


def write(folder: Path, manifest: Manifest) -> None:
    """Make the model's files durable, then its manifest, whole or not at all."""
    for file_name in manifest.files:
        _sync(folder / file_name)
    partial = folder / f".{MANIFEST_FILE}.partial"
    partial.write_bytes(manifest.to_bytes())
    _sync(partial)
    partial.replace(folder / MANIFEST_FILE)
    _sync(folder)


def digest_file(path: Path) -> FileDigest:
    """Return sha256 and size of a file's present bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(digest, os.fstat(file.fileno()).st_size)


def _broken(name: str, reason: str) -> ModelError:
    return ModelError(
        f"Model `{name}` cannot be used: {reason}. Repair it with `embedserve pull {name}`."
    )


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
