"""What a checkpoint says of itself, what the user adds, and what is refused with a way out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from embedserve.errors import ModelError
from embedserve.models.checkpoint import Overrides, read_facts, weights_sha256
from embedserve.models.modules import Module
from embedserve.models.tokenizer_file import copy_tokenizer
from embedserve.models.weights import read_tensors
from tests.hub_double import tiny_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content = {key: value for key, value in {**content, **values}.items() if value is not None}
    path.write_text(json.dumps(content))


def plain(folder: Path) -> Path:
    """Take away all that sentence-transformers adds."""
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    (folder / "1_Pooling" / "config.json").unlink()
    return folder


def classifier(folder: Path, labels: int) -> Path:
    names = {str(label): f"LABEL_{label}" for label in range(labels)}
    change(
        plain(folder) / "config.json",
        architectures=["BertForSequenceClassification"],
        id2label=names,
    )
    return folder


def test_plain_repository_works_with_what_the_user_says(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"how its tokens are pooled.*`--pooling` with one of"):
        read_facts(plain(folder))
    facts = read_facts(folder, Overrides(pooling="cls", query_prompt="find: "))
    assert (facts.kind, facts.pooling, facts.max_tokens) == ("embedding", "cls", 64)
    assert (facts.query_prompt, facts.document_prompt, facts.modules) == ("find: ", "", ())
    with pytest.raises(ModelError, match="Unknown pooling `middle`"):
        read_facts(folder, Overrides(pooling="middle"))


def test_what_the_user_says_goes_before_the_files(folder: Path) -> None:
    told = Overrides("max", 7, query_prompt="", document_prompt="text: ")
    facts = read_facts(folder, told)
    assert (facts.pooling, facts.max_tokens) == ("max", 7)
    assert (facts.query_prompt, facts.document_prompt) == ("", "text: ")


@pytest.mark.parametrize("length", [0, 65])
def test_length_beyond_the_positions_is_refused(folder: Path, length: int) -> None:
    with pytest.raises(ModelError, match=rf"`--max-tokens {length}` does not fit.*64 positions"):
        read_facts(folder, Overrides(max_tokens=length))


def test_length_is_cut_to_the_positions(folder: Path) -> None:
    change(folder / "sentence_bert_config.json", max_seq_length=512)
    assert read_facts(folder).max_tokens == 64
    change(folder / "config.json", model_type="roberta", pad_token_id=1)
    facts = read_facts(folder)
    assert (facts.max_tokens, facts.pad_token_id) == (62, 1)


def test_relative_positions_need_a_length(folder: Path) -> None:
    t5 = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64}
    change(folder / "config.json", model_type="t5", max_position_embeddings=None, **t5)
    assert read_facts(folder).max_tokens == 48
    (folder / "sentence_bert_config.json").unlink()
    change(folder / "tokenizer_config.json", model_max_length=int(1e30))
    with pytest.raises(ModelError, match=r"how long a text may be.*`--max-tokens`"):
        read_facts(folder)
    assert read_facts(folder, Overrides(max_tokens=4096)).architecture.context_length == 4096


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({"query": "q: ", "passage": "p: "}, None, "q: ", "p: "),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, "q: ", ""),
        ({"query": "q: "}, None, "q: ", ""),
        ({"query": "q: ", "task": "t: "}, "task", "q: ", "t: "),
        ({"task": "t: "}, "task", "t: ", "t: "),
        ({}, None, "", ""),
        (None, None, "", ""),
    ],
)
def test_prompts_are_those_of_sentence_transformers(
    folder: Path, prompts: dict[str, str] | None, default: str | None, query: str, document: str
) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": prompts, "default_prompt_name": default}))
    facts = read_facts(folder)
    assert (facts.query_prompt, facts.document_prompt) == (query, document)


def test_prompts_of_unknown_use_are_asked_for(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"s2p": "a: ", "s2s": "b: "}}))
    with pytest.raises(ModelError, match=r"`s2p`, `s2s`.*`--query-prompt` and `--document-prompt`"):
        read_facts(folder)
    assert read_facts(folder, Overrides(query_prompt="a: ")).query_prompt == "a: "


def test_classifier_of_one_label_is_a_reranker(folder: Path) -> None:
    facts = read_facts(classifier(folder, labels=1))
    assert (facts.kind, facts.pooling, facts.dimensions) == ("reranker", "none", 1)
    with pytest.raises(ModelError, match="a classifier with 3 labels; a reranker has one"):
        read_facts(classifier(tiny_checkpoint(folder), labels=3))


@pytest.mark.parametrize("name", ["activation.Sigmoid", "linear.Identity", "activation.Tanh"])
def test_reranker_whose_score_is_no_logit_and_no_sigmoid_is_refused(
    folder: Path, name: str
) -> None:
    config = classifier(folder, labels=1) / "config.json"
    path = f"torch.nn.modules.{name}"
    said = folder / "config_sentence_transformers.json"
    for file, values in (
        (config, {"sbert_ce_default_activation_function": path}),
        (config, {"sentence_transformers": {"activation_fn": path}}),
        (said, {"activation_fn": path}),
    ):
        file.touch()
        before = file.read_text() or "{}"
        file.write_text(json.dumps(json.loads(before) | values))
        if name.endswith("Tanh"):
            with pytest.raises(ModelError, match="by `Tanh`; a reranker can be served with one of"):
                read_facts(folder)
        else:
            assert read_facts(folder).kind == "reranker"
        file.write_text(before)


def test_modules_behind_the_pooling_are_told(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    dense = folder / "2_Dense"
    dense.mkdir()
    tanh = "torch.nn.modules.activation.Tanh"
    change(dense / "config.json", in_features=32, out_features=24, activation_function=tanh)
    without = read_facts(tiny_checkpoint(folder.with_name("other"))).architecture.parameter_count
    save_file({"linear.weight": np.zeros((24, 32), np.float32)}, dense / "model.safetensors")
    facts = read_facts(folder)
    assert facts.modules == (Module("Dense", "2_Dense", "Tanh", 24), Module("Normalize"))
    assert (facts.dimensions, facts.architecture.parameter_count) == (24, without + 24 * 32)
    change(dense / "config.json", activation_function="torch.nn.modules.activation.Mish")
    with pytest.raises(ModelError, match=r"activation `Mish`; these are known: Identity, Tanh"):
        read_facts(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "qwen3"}, r"a decoder \(`qwen3`\)"),
        ("config.json", {"model_type": "gemma3_text"}, "is a decoder"),
        ("config.json", {"architectures": ["NewForCausalLM"]}, "is a decoder"),
        ("config.json", {"is_decoder": True}, "Only encoders can be served"),
        ("config.json", {"model_type": "nomic_bert"}, "only served from a ready `onnx/model.onnx`"),
        ("config.json", {"model_type": "wav2vec2"}, "of type `wav2vec2`; these are known: bert"),
        ("config.json", {"auto_map": {"AutoModel": "a.B"}}, "own code, which is never run"),
        ("config.json", {"num_hidden_layers": None}, "is incomplete: 'num_hidden_layers'"),
        ("tokenizer.json", {"model": None}, r"tokenizer.json` is not a tokenizer"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pools by .'mean', 'cls'"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pools by .'weightedmean'"),
        ("1_Pooling/config.json", {"include_prompt": False}, "pools without its prompt"),
    ],
)
def test_what_cannot_be_served_is_refused(
    folder: Path, file: str, values: dict[str, Any], message: str
) -> None:
    change(folder / file, **values)
    with pytest.raises(ModelError, match=message):
        read_facts(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tokenizer.json", r"its tokenizer is not a fast one.*save_pretrained"),
        ("config.json", "has no `config.json`"),
        (
            "model.safetensors",
            r"no `model.safetensors` and no `onnx/model.onnx`.*convert them",
        ),
    ],
)
def test_missing_file_is_named(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=message):
        read_facts(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"type": "x.StaticEmbedding", "path": ""}], "begins with a module `StaticEmbedding`"),
        ([{"type": "x.Transformer", "path": "0_T"}], "`Transformer` in `./0_T`"),
        ([{"type": "x.Transformer", "path": "../up"}], "points out of the checkpoint"),
        ([{"type": "x.Transformer", "path": ""}, {"type": "x.WordWeights"}], "a module `WordWei"),
        ([], "begins with nothing"),
        ({}, "is not a list of JSON objects"),
    ],
)
def test_unknown_modules_are_refused(folder: Path, rows: object, message: str) -> None:
    (folder / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(ModelError, match=message):
        read_facts(folder)


def test_ready_graph_stands_for_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph" * 100)
    facts, digest = read_facts(folder), weights_sha256(folder)
    assert facts.architecture.parameter_count == 125
    (folder / "onnx" / "model.onnx_data").write_bytes(b"weights")
    assert weights_sha256(folder) != digest
    with pytest.raises(ModelError, match=r"no `model.safetensors`"):
        read_facts(folder, Overrides(ignores_onnx=True))


def test_half_precision_tensors_are_read_as_floats(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [0.0, 3.25]], dtype=np.float32)
    path = tmp_path / "model.safetensors"
    save_file({"half": values.astype(np.float16), "full": values}, path)
    for array in read_tensors(path).values():
        assert array.dtype == np.float32
        assert np.array_equal(array, values)
    save_file({"codes": np.zeros(2, np.int8)}, path)
    with pytest.raises(ModelError, match="holds `codes` as I8"):
        read_tensors(path)


def test_lower_case_is_put_into_the_tokenizer_once(folder: Path, tmp_path: Path) -> None:
    given = (folder / "tokenizer.json").read_bytes()
    copy_tokenizer(folder, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == given
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    copy_tokenizer(folder, tmp_path)
    # This one's own normalizer lowers the case already.
    assert (tmp_path / "tokenizer.json").read_bytes() == given
    change(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": []})
    copy_tokenizer(folder, tmp_path)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("A").tokens[1] == "a"
