"""A model hub on this machine: a real HTTP server with the hub's paths, headers and refusals.

It serves what it is given, large files by a redirect to a second host name as the hub does, and
fails where a test tells it to. `tiny_checkpoint` makes a BERT of a few kilobytes for it.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import BertWordPieceTokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin")
"""Suffixes of what the hub keeps as large files: by sha256, behind a redirect."""

_INFO = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CDN = re.compile(r"/cdn/(?P<repository>[^/]+/[^/]+)/(?P<name>.+)")


@dataclass
class Faults:
    """What goes wrong; lists are used up from the front, one entry a request."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Answers instead of the content, by the end of the path."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Bytes of a file's body after which the connection ends."""
    altered: set[str] = field(default_factory=set)
    """Files of which another content is sent than is listed."""
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that are listed instead of the true ones."""
    holds_after: int | None = None
    """Bytes of a large file after which the server waits for `released`."""
    is_holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class HubDouble:
    """Serve `repositories` until the with-block ends; `requests` lists what was asked for."""

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_test"
    has_digests: bool = True
    has_xet: bool = False
    """Whether large files are offered by that way too; nothing listens there."""
    requests: list[str] = field(default_factory=list)
    tokens_at_cdn: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def cdn(self) -> str:
        return self.endpoint.replace("127.0.0.1", "localhost")

    def bodies(self, name: str) -> int:
        """Count the requests for the content of the file `name`."""
        place = "/cdn/" if name.endswith(LARGE) else "/resolve/"
        asked = [request.split()[:2] for request in self.requests]
        return sum(
            method == "GET" and place in path and path.endswith(f"/{name}")
            for method, path in asked
        )

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        # Seconds between looks at whether to stop; the default of half a second adds up.
        serve = partial(self._server.serve_forever, 0.01)
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.released.set()
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
        # A proxy is asked for whole addresses, a server for paths.
        path, query = urlsplit(self.path).path, urlsplit(self.path).query
        for end, statuses in self.hub.faults.statuses.items():
            if path.endswith(end) and statuses:
                return self._answer(statuses.pop(0), b"", {})
        if cdn := _CDN.fullmatch(path):
            self.hub.tokens_at_cdn += self.headers.get_all("Authorization", [])
            return self._send(cdn["name"], self.hub.repositories[cdn["repository"]], {})
        match = _FILE.fullmatch(path) or _INFO.fullmatch(path)
        if match is None:
            return self._refuse(404, "EntryNotFound")
        repository, revision = match["repository"], match["revision"] or "main"
        if not self._is_open(repository, revision):
            return None
        commit = COMMIT if revision == "main" else revision
        if match.re is _INFO:
            return self._list(repository, commit, has_blobs="blobs=true" in query.lower())
        return self._resolve(repository, commit, match["name"])

    def _is_open(self, repository: str, revision: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        refusal = None
        if token not in ("", self.hub.token):
            refusal = (403, "GatedRepo") if repository in self.hub.gated else (401, "")
        elif repository not in self.hub.repositories:
            refusal = (404, "RepoNotFound")
        elif repository in self.hub.gated and not token:
            refusal = (401, "GatedRepo")
        elif revision != "main" and not _COMMIT.fullmatch(revision):
            refusal = (404, "RevisionNotFound")
        if refusal:
            self._refuse(*refusal)
        return refusal is None

    def _list(self, repository: str, commit: str, *, has_blobs: bool) -> None:
        siblings: list[dict[str, object]] = []
        for name, content in self.hub.repositories[repository].items():
            entry: dict[str, object] = {"rfilename": name}
            if has_blobs and self.hub.has_digests:
                size = self.hub.faults.listed_sizes.get(name, len(content))
                entry |= {"size": size, "blobId": git_sha1(content)}
                if name.endswith(LARGE):
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"size": size, "sha256": sha256, "pointerSize": 130}
            siblings.append(entry)
        body = {"id": repository, "sha": commit, "private": False, "siblings": siblings}
        self._answer(200, json.dumps(body).encode(), {})

    def _resolve(self, repository: str, commit: str, name: str) -> None:
        files = self.hub.repositories[repository]
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit}
        if not name.endswith(LARGE):
            return self._send(name, files, {**headers, "ETag": f'"{git_sha1(files[name])}"'})
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(files[name]).hexdigest()}"',
            "X-Linked-Size": str(len(files[name])),
            "Location": f"{self.hub.cdn}/cdn/{repository}/{name}",
        }
        if self.hub.has_xet:
            headers |= {"X-Xet-Hash": "0" * 64}
            headers |= {"Link": f'<{self.hub.endpoint}/xet>; rel="xet-auth"'}
        return self._answer(302, b"", headers)

    def _send(self, name: str, files: dict[str, bytes], headers: dict[str, str]) -> None:
        content = files[name]
        if name in self.hub.faults.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        cuts = self.hub.faults.cuts.get(name, [])
        stops_after = cuts.pop(0) if cuts and self.command == "GET" else None
        if wanted is None:
            return self._answer(200, content, headers, stops_after=stops_after)
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._answer(206, content[first : last + 1], headers, stops_after=stops_after)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code} if code else {})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], stops_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        holds_after = self.hub.faults.holds_after
        if holds_after is not None and _CDN.fullmatch(urlsplit(self.path).path):
            self.wfile.write(body[:holds_after])
            self.hub.faults.is_holding.set()
            self.hub.faults.released.wait()
            body = body[holds_after:]
        self.wfile.write(body[:stops_after])
        self.close_connection = self.close_connection or stops_after is not None

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet; `hub.requests` is the log."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


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
