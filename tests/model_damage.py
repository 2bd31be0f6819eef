"""Ways to damage the folder of an installed model."""

import json
from collections.abc import Callable
from pathlib import Path


def flip_byte(folder: Path) -> None:
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])


def delete_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def rewrite_manifest(**changes: object) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))

    return rewrite


def list_foreign_file(folder: Path) -> None:
    (folder.parent / "x").write_bytes(b"somebody's own")
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    rewrite_manifest(files={**files, "../x": {"sha256": "0" * 64, "size_bytes": 14}})(folder)


def cut_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
