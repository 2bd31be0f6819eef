"""Turns the transposition of attention's keys into a form that OpenVINO computes for nothing."""

from onnx import ModelProto, helper

from embedserve.models.graph import replace_items

# (batch, tokens, heads, features) -> (batch, heads, features, tokens), in one step and in two.
_AT_ONCE = [0, 2, 3, 1]
_HEADS_FIRST = [0, 2, 1, 3]
_TURNED = [0, 1, 3, 2]


def split_key_transposes(model: ModelProto) -> None:
    """Write the keys' transposition as two, in place; the graph gives the same, bit for bit.

    OpenVINO takes the second into the product of queries and keys and the first into its attention
    kernel. The exporter's single one it runs by itself, 3 to 4 % of the time of all-minilm.
    """
    nodes = []
    for node in model.graph.node:
        orders = [list(item.ints) for item in node.attribute if item.name == "perm"]
        if node.op_type != "Transpose" or orders != [_AT_ONCE]:
            nodes.append(node)
            continue
        between = f"{node.output[0]}_heads_first"
        first = helper.make_node("Transpose", [node.input[0]], [between], perm=_HEADS_FIRST)
        second = helper.make_node("Transpose", [between], [node.output[0]], perm=_TURNED)
        first.name, second.name = between, node.output[0]
        nodes += [first, second]
    replace_items(model.graph.node, nodes)
