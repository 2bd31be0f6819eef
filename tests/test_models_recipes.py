"""What the recipes do to numbers, shown in numpy beside what the graphs compute."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from embedserve.models import blockwise
from embedserve.models.builders import BUILDERS
from embedserve.models.calibration import Ranges, observing_graph, read_ranges
from embedserve.models.graph import GraphEditor, save
from embedserve.models.integers import asymmetric, is_large_table, shrink_table, symmetric
from embedserve.models.names import RECIPES as RECIPE_NAMES
from embedserve.models.recipes import DEFAULTS, FULL_RANGE, RECIPES, SAFE_RANGE
from embedserve.types import TokenIds
from tests.small_graph import Floats, drawn, graph_of, run
from tests.tiny_graph import random_text, write_tiny_graph
from tests.tiny_models import Exported

WIDTH = 8


# -- integers ---------------------------------------------------------------------------------


def saturating_product(u: NDArray[np.uint8], s: NDArray[np.int8]) -> int:
    """Do what `vpmaddubsw` and `vpmaddwd` do: pairs of products saturate at 16 bits."""
    products = u.astype(np.int64) * s.astype(np.int64)
    pairs = np.clip(products[0::2] + products[1::2], -(2**15), 2**15 - 1)
    return int(pairs.sum())


@pytest.mark.parametrize("sign", [1, -1])
def test_seven_bit_weights_never_saturate_sixteen_bits_and_eight_bit_ones_do(sign: int) -> None:
    greatest = np.full(4, 255, dtype=np.uint8)
    for limit, is_exact in ((SAFE_RANGE, True), (FULL_RANGE, False)):
        # The farthest that two products can get: nothing lies beyond.
        weights, _ = symmetric(np.full((4, 1), sign, dtype=np.float32), axis=0, limit=limit)
        assert np.abs(weights.astype(int)).max() == limit
        true = greatest.astype(np.int64) @ weights[:, 0].astype(np.int64)
        assert (saturating_product(greatest, weights[:, 0]) == true) == is_exact
    assert 2 * 255 * SAFE_RANGE <= 2**15 - 1 < 2 * 255 * (SAFE_RANGE + 1)


@pytest.mark.parametrize("limit", [SAFE_RANGE, FULL_RANGE])
def test_symmetric_codes_stay_in_their_range_and_miss_by_half_a_step(limit: int) -> None:
    weights = drawn(40, 6) * np.array([1, 10, 1e-3, 1e4, 0, 1], dtype=np.float32)
    codes, scale = symmetric(weights, axis=0, limit=limit)
    assert np.abs(codes.astype(int)).max() == limit
    assert (np.abs(codes * scale - weights) <= scale * 0.5001).all()
    assert not codes[:, 4].any()


def test_asymmetric_codes_hold_zero_exactly_and_miss_by_half_a_step() -> None:
    weights = drawn(40, 5) + np.array([0, 3, -3, 0, 0], dtype=np.float32)
    weights[:, 3] = np.abs(weights[:, 3]) + 1
    weights[:, 4] = 0
    found = asymmetric(weights)
    back = (found.codes.astype(np.int64) - found.zero_point) * found.scale
    # The zero point is rounded too: a value at the end of the range may be cut by half a step.
    assert (np.abs(back - weights) <= found.scale * 1.001).all()
    assert (np.abs(back - weights).mean(axis=0) <= found.scale * 0.3).all()
    zeros = asymmetric(np.vstack([weights, np.zeros(5, dtype=np.float32)]))
    assert (zeros.codes[-1] == zeros.zero_point).all()


def test_large_table_is_looked_up_in_int8_with_a_scale_for_each_row() -> None:
    table = drawn(5000, WIDTH) * np.geomspace(1e-3, 1e3, 5000, dtype=np.float32)[:, None]
    table[7] = 0
    model = graph_of(
        [("sentence_embedding", "Gather", "table x")],
        {"table": table},
        kind=TensorProto.INT64,
        rank=3,
    )
    editor = GraphEditor(model)
    [node] = model.graph.node
    assert is_large_table(editor, node)
    shrink_table(editor, node)
    ids = np.array([[0, 7, 4999, 2500]])
    rows = run(editor.finish(), x=ids)
    steps = np.abs(table[ids]).max(axis=-1, keepdims=True) / 127
    assert (np.abs(rows - table[ids]) <= steps * 0.5001).all()
    assert not rows[0, 1].any()
    stored = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    assert TensorProto.INT8 in stored


def test_small_table_is_left_alone() -> None:
    model = graph_of(
        [("sentence_embedding", "Gather", "table x")],
        {"table": drawn(4095, WIDTH)},
        kind=TensorProto.INT64,
    )
    assert not is_large_table(GraphEditor(model), model.graph.node[0])


# -- blocks and halves ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [64, 100, 33, 7])
def test_blocks_unpack_to_the_weights_and_run_as_such(bits: int, rows: int) -> None:
    weights = drawn(rows, 16)
    weights[:, 3] = 0
    codes, scales = blockwise._pack(weights, bits)
    block = blockwise._BLOCK_ROWS[bits]
    blocks = -(-rows // block)
    assert scales.shape == (16, blocks)
    assert codes.shape == (16, blocks, block * bits // 8)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(16, blocks, block)
    values = (codes.astype(np.float32) - 2 ** (bits - 1)) * scales[:, :, None]
    unpacked = values.reshape(16, blocks * block)[:, :rows].T
    steps = np.repeat(np.abs(scales), block, axis=1)[:, :rows].T
    # Codes end one step short of the other side of the farthest value.
    assert (np.abs(unpacked - weights) <= steps * 1.001).all()
    assert not unpacked[:, 3].any()
    model = graph_of(
        [("sentence_embedding", "MatMul", "x w")], {"w": weights}, kind=TensorProto.FLOAT
    )
    x = drawn(5, rows, seed=1)
    ours = run(blockwise.quantize_blocks(model, bits), x=x)
    wanted = x @ unpacked
    # The engine may round inputs to 8 bits.
    assert np.abs(ours - wanted).max() <= 0.02 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    return onnx.load(write_tiny_graph(tmp_path_factory.mktemp("tiny") / "tiny.onnx"))


def some_ids(length: int, count: int) -> TokenIds:
    # The smallest vocabulary among the models here has 179 tokens.
    return 2 + np.stack([random_text(length, seed) for seed in range(count)]) % 170


def embed(model: ModelProto, length: int, count: int = 3) -> Floats:
    ids = some_ids(length, count)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds["token_type_ids"] = np.zeros_like(ids)
    names = {one.name for one in model.graph.input}
    return run(model, **{name: array for name, array in feeds.items() if name in names})


def copy_of(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made


def observed(model: ModelProto) -> Ranges:
    observer = observing_graph(model)
    return read_ranges(model, [embed(observer, length, 1) for length in (1, 5, 20, 60)])


@pytest.mark.parametrize("builder", ["halves", "halves throughout"])
def test_sixteen_bit_weights_run_on_this_cpu_and_agree(builder: str, tiny: ModelProto) -> None:
    made = BUILDERS[builder](copy_of(tiny), {}, FULL_RANGE)
    [output] = made.graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    types = {tensor.data_type for tensor in made.graph.initializer if len(tensor.dims) == 2}
    assert TensorProto.FLOAT16 in types
    for length in (1, 8, 60):
        cosines = (embed(made, length) * embed(tiny, length)).sum(axis=1)
        assert cosines.min() >= 0.999, length


def embed_exactly(model: ModelProto, length: int) -> Floats:
    """Return vectors in the very types of the graph; onnxruntime computes fp16 as fp32 on CPUs."""
    ids = some_ids(length, 3)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    [rows] = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(rows)


def test_pooling_of_fp16_takes_sums_that_fp16_cannot_hold(exported: dict[str, Exported]) -> None:
    for name in ("bert-mean", "bert-sqrt-dense", "bert-lasttoken", "bert-max"):
        model = onnx.load(exported[name].folder / "reference.onnx")
        rows = []
        [last] = [node for node in model.graph.node if "last_hidden_state" in node.output]
        [bias] = [t for t in model.graph.initializer if t.name == last.input[-1]]
        # 64 tokens of 2,000 are 128,000; their squares are far more.
        large = numpy_helper.to_array(bias) + np.float32(2_000)
        bias.CopyFrom(numpy_helper.from_array(large, bias.name))
        for made in (model, BUILDERS["halves throughout"](copy_of(model), {}, FULL_RANGE)):
            rows += [embed(made, 64), embed_exactly(made, 64)]
        assert np.isfinite(rows).all(), name
        for others in rows[1:]:
            assert (rows[0] * others).sum(axis=1).min() >= 0.999, name


def test_row_of_zeros_stays_finite_in_fp16(exported: dict[str, Exported]) -> None:
    model = onnx.load(exported["bert-cls"].folder / "reference.onnx")
    [last] = [node for node in model.graph.node if "last_hidden_state" in node.output]
    for tensor in model.graph.initializer:
        if tensor.name in last.input[1:]:
            zeros = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    made = BUILDERS["halves throughout"](model, {}, FULL_RANGE)
    assert not embed(made, 8).any()
    assert not embed_exactly(made, 8).any()


def test_weights_beyond_fp16_stay_fp32() -> None:
    weights = drawn(64, 64)
    weights[0, 0] = 70_000
    model = graph_of(
        [("sentence_embedding", "MatMul", "x w")], {"w": weights}, kind=TensorProto.FLOAT
    )
    made = BUILDERS["halves"](model, {}, FULL_RANGE)
    assert [tensor.data_type for tensor in made.graph.initializer] == [TensorProto.FLOAT]


@pytest.mark.parametrize("builder", BUILDERS)
def test_same_graph_and_ranges_give_the_same_bytes(
    builder: str, tiny: ModelProto, tmp_path: Path
) -> None:
    ranges = observed(tiny)
    made = []
    for name in ("one.onnx", "two.onnx"):
        save(BUILDERS[builder](copy_of(tiny), ranges, FULL_RANGE), tmp_path / name)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize("builder", ["rows", "static", "static but narrowing"])
def test_weight_limit_is_kept_by_every_integer_recipe(builder: str, tiny: ModelProto) -> None:
    ranges = observed(tiny)
    for limit in (SAFE_RANGE, FULL_RANGE):
        made = BUILDERS[builder](copy_of(tiny), ranges, limit)
        codes = [numpy_helper.to_array(tensor) for tensor in made.graph.initializer]
        greatest = [
            int(np.abs(a.astype(int)).max()) for a in codes if a.dtype == np.int8 and a.any()
        ]
        assert greatest
        assert set(greatest) == {limit}


# -- the table --------------------------------------------------------------------------------


def test_every_recipe_can_be_built_asked_for_and_reached() -> None:
    assert set(RECIPES) == set(RECIPE_NAMES)
    for recipe in RECIPES.values():
        assert recipe.ways
        assert {way.builder for way in recipe.ways} <= {*BUILDERS, "dynamic"}
        assert 0 < recipe.gate.cosine_min <= recipe.gate.cosine_mean < 1
    for device, groups in DEFAULTS.items():
        for name in (name for group in groups for name in group):
            assert RECIPES[name].device in (device, "any")
        assert groups[-1] == ("fp32",), "what always passes is tried last"


def test_gates_are_those_that_are_promised() -> None:
    gate = RECIPES["int8"].gate
    assert (gate.cosine_mean, gate.cosine_min, gate.top10_overlap) == (0.9985, 0.995, 0.965)
    assert RECIPES["int8-precise"].gate.cosine_mean >= 0.9993
    assert RECIPES["bf16"].gate.cosine_mean >= 0.9999
    invariant = [recipe.name for recipe in RECIPES.values() if recipe.is_batch_invariant]
    assert {*RECIPES} - {*invariant} == {"int8-dynamic"}
