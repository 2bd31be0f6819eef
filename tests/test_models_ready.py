"""A checkpoint's own ONNX file is taken as it is, or refused; nothing of the checkpoint is run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from embedserve.errors import ModelError
from embedserve.models.checkpoint import Overrides, read_facts, weights_sha256
from embedserve.models.export import export
from embedserve.models.graph import save
from tests.test_models_architectures import assert_close, run_alone, session
from tests.tiny_models import CASES, ROOT, Exported, export_all


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A BERT whose checkpoint has an ONNX file and a Dense module, and no weights."""
    [case] = [case for case in CASES if case.name == "bert-ready"]
    return export_all(tmp_path_factory.mktemp("ready"), [case])[case.name]


def test_ready_graph_needs_no_training_stack(exported: Exported, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from embedserve.models.export import export\n"
        "export(*map(pathlib.Path, sys.argv[1:]))\n"
        "print({'torch', 'transformers', 'optimum', 'safetensors'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(exported.folder / "checkpoint"), str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr
    again = (tmp_path / "reference.onnx").read_bytes()
    assert again == (exported.folder / "reference.onnx").read_bytes(), "same checkpoint, same bytes"


@pytest.fixture
def ready(exported: Exported, tmp_path: Path) -> Path:
    """A checkpoint with a ready ONNX file, free to be changed."""
    folder = tmp_path / "ready"
    shutil.copytree(exported.folder / "checkpoint", folder)
    return folder


def test_ready_graph_may_keep_its_weights_beside_it(
    exported: Exported, ready: Path, tmp_path: Path
) -> None:
    before = weights_sha256(ready)
    save(onnx.load(str(ready / "onnx/model.onnx")), ready / "onnx/model.onnx", external_bytes=1)
    export(ready, tmp_path)
    assert_close(
        exported,
        run_alone(exported, session(tmp_path / "reference.onnx")),
    )
    with (ready / "onnx/model.onnx.data").open("r+b") as file:
        file.write(b"\xff")
    assert before != weights_sha256(ready) != ""


def as_hub_keeps_it(folder: Path, cache: Path) -> Path:
    """Lay a checkpoint out like a hub cache: its files are symlinks to files with other names."""
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "commit"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        (blobs / str(number)).hardlink_to(path)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / str(number))
    return snapshot


def test_weights_beside_a_graph_are_read_through_the_links_of_a_hub_cache(
    exported: Exported, ready: Path, tmp_path: Path
) -> None:
    save(onnx.load(str(ready / "onnx/model.onnx")), ready / "onnx/model.onnx", external_bytes=1)
    cached = as_hub_keeps_it(ready, tmp_path / "cache")
    assert (cached / "onnx/model.onnx.data").is_symlink()
    assert weights_sha256(cached) == weights_sha256(ready)
    export(cached, tmp_path)
    assert_close(exported, run_alone(exported, session(tmp_path / "reference.onnx")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../secret", r"in `../secret`; only files beside the graph are read"),
        ("location", "/etc/passwd", r"in `/etc/passwd`; only files beside the graph are read"),
        ("location", "..", r"in `..`; only files beside the graph are read"),
        ("location", "", r"in ``; only files beside the graph are read"),
        ("location", "absent", r"cannot be read from `absent`: .*No such file"),
        ("offset", "-1", r"cannot be read from `model.onnx.data`: it has \d+ bytes, -1"),
        ("length", "999999999", r"cannot be read from `model.onnx.data`: it has \d+ bytes"),
    ],
)
def test_weights_elsewhere_are_not_read(
    ready: Path, tmp_path: Path, key: str, value: str, message: str
) -> None:
    path = ready / "onnx/model.onnx"
    (ready / "secret").write_bytes(bytes(10**6))
    save(onnx.load(str(path)), path, external_bytes=1)
    graph = onnx.load(str(path), load_external_data=False)
    outside = [t for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    [place] = [item for item in outside[0].external_data if item.key == key]
    place.value = value
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=message):
        export(ready, tmp_path)


def test_code_beside_a_ready_graph_is_not_run(
    exported: Exported, ready: Path, tmp_path: Path
) -> None:
    figures = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 64}
    code = {"auto_map": {"AutoModel": "modeling_nomic.NomicBertModel"}}
    vocabulary_size = json.loads((ready / "config.json").read_text())["vocab_size"]
    config = {"model_type": "nomic_bert", "vocab_size": vocabulary_size, **figures, **code}
    (ready / "config.json").write_text(json.dumps(config))
    (ready / "modeling_nomic.py").write_text("raise SystemExit('this code was run')")
    export(ready, tmp_path)
    model = replace(exported, folder=tmp_path, facts=read_facts(ready))
    assert model.facts.family == "nomic_bert"
    assert_close(model, run_alone(model, session(tmp_path / "reference.onnx")))
    (ready / "model.safetensors").touch()
    with pytest.raises(ModelError, match="own code, which is never run"):
        read_facts(ready, Overrides(ignores_onnx=True))


def half(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float16), "half"))


def foreign(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].domain = "com.microsoft"


def fixed(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128


def positions(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = "position_ids"


def unnamed(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].name = "hidden"
    graph.graph.node[-1].output[0] = "hidden"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (half, "quantized or in half precision"),
        (foreign, "has operators of com.microsoft"),
        (fixed, "takes `input_ids` in a fixed shape"),
        (positions, "takes attention_mask, position_ids"),
        (unnamed, "The graph gives `hidden`; `last_hidden_state` or `token_embeddings` is needed"),
    ],
)
def test_ready_graph_that_does_not_fit_is_refused(
    ready: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    graph = onnx.load(str(ready / "onnx/model.onnx"))
    change(graph)
    onnx.save(graph, str(ready / "onnx/model.onnx"))
    with pytest.raises(ModelError, match=rf"{message}.*--ignore-onnx"):
        export(ready, tmp_path)


def test_torn_ready_graph_is_refused(ready: Path, tmp_path: Path) -> None:
    path = ready / "onnx/model.onnx"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cannot be read: .*Fetch it again"):
        export(ready, tmp_path)
