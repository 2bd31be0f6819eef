"""A model hub on this machine: a real HTTP server with the hub's paths and headers.

It serves what it is given; `tiny_checkpoint` makes a BERT of a few kilobytes for it.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import BertWordPieceTokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")


@dataclass
class HubDouble:
    """Serve `repositories` until the with-block ends; `requests` lists what was asked for."""

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_test"
    requests: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubDouble
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        told = (self.command, self.path, self.headers.get("Range", ""))
        self.hub.requests.append(" ".join(told).rstrip())
        match = _INFO.fullmatch(self.path) or _FILE.fullmatch(self.path)
        if match is None:
            return self._refuse(404, "EntryNotFound")
        repository, revision = match[1], match[2]
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        is_known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository in self.hub.gated and not is_known:
            return self._refuse(401, "GatedRepo")
        if revision not in (COMMIT, "main"):
            return self._refuse(404, "RevisionNotFound")
        if match.re is _INFO:
            siblings = [{"rfilename": name} for name in files]
            body = {"id": repository, "sha": COMMIT, "private": False, "siblings": siblings}
            return self._answer(200, json.dumps(body).encode(), {})
        if match[3] not in files:
            return self._refuse(404, "EntryNotFound")
        return self._file(files[match[3]])

    def _file(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._answer(200, content, headers)
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._answer(206, content[first : last + 1], headers)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet; `hub.requests` is the log."""


def tiny_checkpoint(folder: Path, *, has_normalize: bool = True, seed: int = 0) -> Path:
    """Write a BERT of two layers with random weights in the layout of sentence-transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    tokenizer = BertWordPieceTokenizer({token: place for place, token in enumerate(vocabulary)})
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(save(_weights(len(vocabulary), seed)))
    modules = ["Transformer", "Pooling", "Normalize"][: 3 if has_normalize else 2]
    _json(folder / "modules.json", [_module(place, kind) for place, kind in enumerate(modules)])
    _json(folder / "config.json", {**_CONFIG, "vocab_size": len(vocabulary)})
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    _json(folder / "1_Pooling" / "config.json", pooling)
    _json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    _json(folder / "config_sentence_transformers.json", prompts)
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    _json(folder / "tokenizer_config.json", told)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


_CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def _weights(vocabulary_size: int, seed: int) -> dict[str, NDArray[np.float32]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary_size, 32),
        "embeddings.position_embeddings.weight": (64, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "embeddings.LayerNorm.weight": (32,),
        "embeddings.LayerNorm.bias": (32,),
        "pooler.dense.weight": (32, 32),
        "pooler.dense.bias": (32,),
    }
    for layer in range(2):
        linear = {"attention.self.query": (32, 32), "attention.self.key": (32, 32)}
        linear |= {"attention.self.value": (32, 32), "attention.output.dense": (32, 32)}
        linear |= {"intermediate.dense": (64, 32), "output.dense": (32, 64)}
        for name, shape in linear.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.weight"] = (32,)
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.bias"] = (32,)
    generator = np.random.default_rng(seed)
    drawn = {name: generator.normal(0, 0.3, shape) for name, shape in shapes.items()}
    # Gains around 1, as in a trained network.
    return {
        name: (value + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, value in drawn.items()
    }


def _module(place: int, kind: str) -> dict[str, object]:
    path = "" if place == 0 else f"{place}_{kind}"
    kind = f"sentence_transformers.models.{kind}"
    return {"idx": place, "name": str(place), "path": path, "type": kind}


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
