"""The manifest: what an installed model is, where it came from, and what its files must be.

It is written last, so a folder that has one is complete. Its bytes are canonical JSON: one line,
sorted keys (read it with `python -m json.tool`).
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from embedserve.errors import ModelError, ModelNotFoundError
from embedserve.models.checkpoint import Architecture
from embedserve.models.fidelity import FidelityCard
from embedserve.models.library import find_known
from embedserve.models.names import parse_name
from embedserve.types import Arithmetic, InputType

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
REFERENCE_FILE = "reference.onnx"
"""The fp32 graph that recipes are built from; it is not installed."""
MODEL_FILES = (ONNX_FILE, TOKENIZER_FILE)
"""The files that every model has."""
WEIGHTS_FILE = "model.onnx.data"
"""Weights of a graph that is too large for one file."""


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
class Runtime:
    """How the graph is run: another engine or arithmetic gives other vectors."""

    engine: str
    arithmetic: Arithmetic
    """Of what is not integer in the graph."""
    dynamic_group: int
    """Features of a token row that share a scale where the engine quantizes by itself."""
    pad_token_id: int
    """What fills a text up to its bucket, in engines that have buckets."""


@dataclass(frozen=True)
class Performance:
    """What was measured on the machine that pulled, in a process with nothing but this model."""

    engine_version: str
    """Such as `openvino 2026.4.1`."""
    cpu: str
    """Class of the CPU: two machines of one class give the same bits."""
    threads: int
    tokens_per_s_16: float
    """Texts of 16 tokens, many at once; all threads together."""
    tokens_per_s_128: float
    tokens_per_s_mixed: float
    """Texts of 8 to 250 tokens."""
    resident_bytes: int
    """Of the whole process after all of that."""
    is_batch_invariant: bool
    """Whether texts gave the same bits alone and among others."""


@dataclass(frozen=True)
class Candidate:
    """What a pull tried before it chose, and what came of it."""

    engine: str
    recipe: str
    method: str
    verdict: str
    """`installed`, `slower`, or why it was refused."""
    tokens_per_s_mixed: float | None = None
    """None: refused before its speed was measured."""


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
    """sha256 of the checkpoint's weights: `model.safetensors`, or its ready ONNX file."""
    licence: str
    """SPDX identifier; empty when not known."""
    kind: Literal["embedding", "reranker"]
    family: str
    architecture: Architecture
    pooling: str
    max_tokens: int
    dimensions: int
    matryoshka_dimensions: tuple[int, ...]
    """Shorter vectors that the model was trained for, longest first."""
    layer_norm_before_cut: bool
    """Whether vectors are standardized before they are cut to fewer dimensions."""
    query_prompt: str
    document_prompt: str
    recipe: str
    method: str
    """How the recipe was built, in words."""
    runtime: Runtime
    files: dict[str, FileDigest]
    canary: Canary
    fidelity: FidelityCard
    performance: Performance
    candidates: tuple[Candidate, ...]
    """Everything that was tried, this artefact included."""
    created_at: str
    """RFC 3339, UTC."""
    parent: str = ""
    """The model that this one was made from with other parameters; empty for a pulled one."""
    input_type: InputType | None = None
    """Whose prompt texts get where a request does not say; None: none."""

    @property
    def artefact(self) -> str:
        """64 hex digits: the same whenever the same texts give the same vectors.

        Two exports of one checkpoint share it as long as their files have the same bytes and run on
        the same engine in the same way.
        """
        facts: dict[str, object] = {
            "files": {name: file.sha256 for name, file in self.files.items()},
            "max_tokens": self.max_tokens,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
            "runtime": asdict(self.runtime),
        }
        # Only where it is set: what was installed before there was such a choice keeps its name.
        if self.input_type:
            facts["input_type"] = self.input_type
        return _sha256(_canonical(facts))

    @property
    def digest(self) -> str:
        """64 hex digits: sha256 of the manifest file."""
        return _sha256(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        values = asdict(self)
        # Left out where they say nothing, so that the digests of pulled models stay what they were.
        for name in ("parent", "input_type"):
            if not values[name]:
                del values[name]
        return _canonical(values)


_ADAPTER = TypeAdapter(Manifest)


def read(folder: Path, name: str) -> Manifest:
    """Read the manifest of model `name`.

    Raises ModelNotFoundError where there is none, ModelError for one that this version cannot use.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
        if version != FORMAT_VERSION:
            reason = f"`{path}` has format {version}, this version reads {FORMAT_VERSION}"
            raise _broken(name, reason, str(content.get("parent", "")))
        manifest = _ADAPTER.validate_python(content)
    except FileNotFoundError:
        raise ModelNotFoundError(name) from None
    except OSError as error:
        raise _broken(name, f"`{path}` cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        first = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise _broken(name, f"`{path}` is not a manifest ({first})") from error
    if not set(MODEL_FILES) <= set(manifest.files):
        raise _broken(name, f"`{path}` does not list {' and '.join(MODEL_FILES)}")
    # Also what keeps a path such as `../x` from being read.
    if foreign := set(manifest.files) - {*MODEL_FILES, WEIGHTS_FILE}:
        raise _broken(name, f"`{path}` lists other than a model's files: {sorted(foreign)}")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its digest; raise ModelError that names the one that differs."""
    for file_name, expected in manifest.files.items():
        path = folder / file_name
        try:
            found = digest_file(path)
        except OSError as error:
            reason = f"`{path}` cannot be read: {error.strerror}"
            raise _broken(manifest.name, reason, manifest.parent) from error
        if found.size_bytes != expected.size_bytes:
            reason = f"`{path}` has {found.size_bytes} bytes instead of {expected.size_bytes}"
            raise _broken(manifest.name, reason, manifest.parent)
        if found.sha256 != expected.sha256:
            reason = f"`{path}` has sha256 {found.sha256[:12]} instead of {expected.sha256[:12]}"
            raise _broken(manifest.name, reason, manifest.parent)


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


def _broken(name: str, reason: str, parent: str = "") -> ModelError:
    return ModelError(f"Model `{name}` cannot be used: {reason}. {_repair(name, parent)}")


def _repair(name: str, parent: str) -> str:
    if parent:
        # The two share their files, so that the parent is most likely damaged too.
        return f"Pull its parent again (`embedserve pull {parent}`), and create `{name}` anew."
    if find_known(parse_name(name)) is None:
        return (
            f"Repair it with `embedserve pull {name}`, pulled as before; a copy: pull what it was "
            "copied from, and copy it again."
        )
    return f"Repair it with `embedserve pull {name}`."


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
