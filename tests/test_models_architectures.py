"""Every encoder architecture: its exported graph gives what sentence-transformers gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from embedserve.models.graph import save
from tests.tiny_models import CASES, Exported, pairs, texts
from tests.tiny_networks import MAX_TOKENS

OPSET = 18

# Frameworks add up in different orders; random weights of this size make the most of it.
MIN_COSINE = 0.9999
MAX_SCORE_DIFFERENCE = 1e-4
# What padding may change: the length over which attention is summed up, hence rounding.
MAX_PADDING_DIFFERENCE = 1e-5

Rows = NDArray[np.float32]


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def encodings(model: Exported) -> list[Encoding]:
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.facts.max_tokens)
    inputs: Sequence[str | tuple[str, str]] = pairs() if model.case.is_reranker else texts()
    found: list[Encoding] = tokenizer.encode_batch(list(inputs))
    return found


def run(
    network: ort.InferenceSession, batch: Sequence[Encoding], *, length: int, pad_token_id: int
) -> Rows:
    """Run a batch whose rows are filled up to `length` on the right."""
    ids = np.full((len(batch), length), pad_token_id, dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, item in enumerate(batch):
        count = len(item.ids)
        ids[row, :count], mask[row, :count], types[row, :count] = item.ids, 1, item.type_ids
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    [rows] = network.run(None, {node.name: given[node.name] for node in network.get_inputs()})
    return np.asarray(rows, dtype=np.float32)


def run_alone(model: Exported, network: ort.InferenceSession, *, length: int = 0) -> Rows:
    """Run each text by itself, at its own length or padded to `length`."""
    pad = model.facts.pad_token_id
    rows = [
        run(network, [item], length=max(length, len(item.ids)), pad_token_id=pad)
        for item in encodings(model)
    ]
    return np.concatenate(rows)


def assert_close(model: Exported, rows: Rows) -> None:
    assert rows.shape == model.expected.shape
    if model.case.is_reranker:
        assert np.abs(rows - model.expected).max() <= MAX_SCORE_DIFFERENCE
    else:
        assert (rows * model.expected).sum(axis=1).min() >= MIN_COSINE
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.fixture(params=[case.name for case in CASES])
def model(exported: dict[str, Exported], request: pytest.FixtureRequest) -> Exported:
    return exported[request.param]


def test_graph_gives_what_sentence_transformers_gives(model: Exported) -> None:
    lengths = {len(item.ids) for item in encodings(model)}
    assert min(lengths) <= (14 if model.case.is_reranker else 6), "short texts are among them"
    assert len(lengths) >= 4
    assert max(lengths) == MAX_TOKENS or model.case.is_reranker
    assert_close(model, run_alone(model, session(model.folder / "reference.onnx")))


def test_texts_differ_from_each_other(model: Exported) -> None:
    # Otherwise closeness to the expected rows would prove little.
    rows = model.expected
    if model.case.is_reranker:
        assert np.ptp(rows) > 100 * MAX_SCORE_DIFFERENCE
    else:
        distinct = np.unique(np.round(rows, 4), axis=0)
        assert (distinct @ distinct.T)[~np.eye(len(distinct), dtype=bool)].mean() < 0.99


def test_padding_changes_rounding_only(model: Exported) -> None:
    network = session(model.folder / "reference.onnx")
    padded = run_alone(model, network, length=MAX_TOKENS)
    assert np.isfinite(padded).all()
    difference = np.abs(padded - run_alone(model, network)).max()
    assert difference <= (
        MAX_SCORE_DIFFERENCE if model.case.is_reranker else MAX_PADDING_DIFFERENCE
    )
    assert_close(model, padded)


def test_row_does_not_depend_on_its_batch(model: Exported) -> None:
    network, pad = session(model.folder / "reference.onnx"), model.facts.pad_token_id
    alone = run_alone(model, network, length=MAX_TOKENS)
    items = encodings(model)
    for size in (2, 3, 5, len(items)):
        batch = run(network, items[:size], length=MAX_TOKENS, pad_token_id=pad)
        assert np.array_equal(batch, alone[:size]), size


def test_batch_of_one_length_equals_its_texts_alone(model: Exported) -> None:
    network = session(model.folder / "reference.onnx")
    longest = max(encodings(model), key=lambda item: len(item.ids))
    lengths = [n for n in (*range(3, 10), 15, 16, 17, 31, 33, 48, 63, 64) if n <= len(longest.ids)]
    names = [node.name for node in network.get_inputs()]
    generator = np.random.default_rng(8)
    for length in lengths:
        # Permuted, but for the special tokens at both ends.
        inner = [generator.permutation(longest.ids[1 : length - 1]) for _ in range(5)]
        ids = np.array([[longest.ids[0], *row, longest.ids[-1]] for row in inner], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given["token_type_ids"] = np.zeros_like(ids)
        feeds = {name: given[name] for name in names}
        [batch] = network.run(None, feeds)
        for row in range(len(ids)):
            [alone] = network.run(None, {name: feeds[name][row : row + 1] for name in names})
            assert np.array_equal(batch[row : row + 1], alone), (length, row)


def test_graph_has_only_what_is_needed(model: Exported) -> None:
    graph = onnx.load(str(model.folder / "reference.onnx"))
    inputs = [item.name for item in graph.graph.input]
    assert inputs == ["input_ids", "attention_mask"]
    operators = {node.op_type for node in graph.graph.node}
    assert not operators & {"If", "Constant"}, "OpenVINO cannot run the one, recipes want the other"
    is_written_out = "ReduceMean" in operators
    assert is_written_out == (model.case.family == "t5"), "layer norms are one operator"
    [output] = graph.graph.output
    assert output.name == ("score" if model.case.is_reranker else "sentence_embedding")
    assert {tensor.data_type for tensor in graph.graph.initializer} <= {
        *(onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32),
        onnx.TensorProto.BOOL,
    }
    assert next(item.version for item in graph.opset_import if item.domain == "") >= OPSET
    vocabulary = model.facts.architecture.vocabulary_size
    tables = [t for t in graph.graph.initializer if vocabulary in t.dims]
    assert len(tables) == 1, "tied and unused tables are dropped"


def test_facts_tell_the_model(model: Exported) -> None:
    facts, case = model.facts, model.case
    assert (facts.kind == "reranker") == case.is_reranker
    assert (facts.family, facts.max_tokens) == (case.family, MAX_TOKENS)
    assert facts.dimensions == model.expected.shape[1]
    assert facts.architecture.block_count == (3 if case.family == "modernbert" else 2)
    assert (facts.architecture.head_count, facts.architecture.feed_forward_length) == (4, 64)
    assert facts.architecture.context_length == MAX_TOKENS
    if not case.is_reranker:
        assert facts.pooling == case.pooling
        assert tuple(module.kind for module in facts.modules) == case.modules
        assert (facts.query_prompt, facts.document_prompt) == ("find: ", "")
    graph = onnx.load(str(model.folder / "reference.onnx"))
    counted = sum(np.prod(tensor.dims) for tensor in graph.graph.initializer)
    if case.ready_opset is None:
        # Constants of the graph, and what is dropped from it, are small beside the weights.
        assert counted == pytest.approx(facts.architecture.parameter_count, rel=0.15)
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    assert tokenizer.id_to_token(facts.pad_token_id) in ("[PAD]", "<pad>")


def test_large_weights_go_to_a_file_of_their_own(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    model = exported["bert-dense"]
    whole = (model.folder / "reference.onnx").read_bytes()
    graph = onnx.load_from_string(whole)
    files = save(graph, tmp_path / "large.onnx", external_bytes=10_000)
    assert files == (tmp_path / "large.onnx", tmp_path / "large.onnx.data")
    assert files[0].stat().st_size < files[1].stat().st_size < len(whole)
    moved = run_alone(model, session(files[0]))
    assert np.array_equal(moved, run_alone(model, session(model.folder / "reference.onnx")))
    assert graph == onnx.load_from_string(whole), "the graph in memory is as it was"
