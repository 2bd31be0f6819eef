"""The transposition of attention's keys is written in two steps, and nothing else is touched."""

import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper

from embedserve.models.keys import split_key_transposes
from tests.small_graph import drawn

SHAPE = [2, 5, 3, 4]  # batch, tokens, heads, features


def attention_scores() -> ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("q", "k")]
    nodes = [
        helper.make_node("Transpose", ["q"], ["queries"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["k"], ["keys"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [2, 3, 5, 5])
    graph = helper.make_graph(nodes, "scores", values, [scores])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: ModelProto) -> bytes:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [scores] = session.run(None, {"q": drawn(*SHAPE), "k": drawn(*SHAPE, seed=1)})
    return bytes(scores.tobytes())


def test_the_scores_stay_the_same_and_the_second_step_can_join_the_product() -> None:
    model = attention_scores()
    before = run(model)
    split_key_transposes(model)
    assert run(model) == before
    orders = {node.output[0]: list(node.attribute[0].ints) for node in model.graph.node[:3]}
    assert orders == {
        "queries": [0, 2, 1, 3],
        "keys_heads_first": [0, 2, 1, 3],
        "keys": [0, 1, 3, 2],
    }
    assert list(model.graph.node[2].input) == ["keys_heads_first"]
