"""Takes out `If` nodes that a traced encoder never needs: OpenVINO cannot run them.

DeBERTa's attention asks at each layer whether there are as many queries as keys. Of one text's
tokens with themselves there are, so the branch for that is the only one ever taken.
"""

from onnx import ModelProto, NodeProto

from embedserve.models.graph import replace_items


def drop_branches(model: ModelProto) -> None:
    """Replace, in place, each `If` on two equal lengths that then only hands on a value."""
    producers = {output: node for node in model.graph.node for output in node.output}
    renamed = {}
    for node in model.graph.node:
        handed_on = _branch_of_equal_lengths(node, producers) if node.op_type == "If" else None
        if handed_on:
            renamed[node.output[0]] = handed_on
    kept = [node for node in model.graph.node if not renamed.keys() & {*node.output}]
    for node in kept:
        replace_items(node.input, [renamed.get(name, name) for name in node.input])
    replace_items(model.graph.node, kept)


def _branch_of_equal_lengths(node: NodeProto, producers: dict[str, NodeProto]) -> str | None:
    """Return the outer value that the branch for equal lengths hands on, or None."""
    is_equal_asked, condition = True, producers.get(node.input[0])
    while condition is not None and condition.op_type in ("Cast", "Not"):
        is_equal_asked ^= condition.op_type == "Not"
        condition = producers.get(condition.input[0])
    if condition is None or condition.op_type != "Equal":
        return None
    if not all(_is_length(name, producers) for name in condition.input):
        return None
    wanted = "then_branch" if is_equal_asked else "else_branch"
    [branch] = [item.g for item in node.attribute if item.name == wanted]
    if [inner.op_type for inner in branch.node] != ["Identity"]:
        return None
    return str(branch.node[0].input[0])


def _is_length(name: str, producers: dict[str, NodeProto]) -> bool:
    node = producers.get(name)
    while node is not None and node.op_type in ("Squeeze", "Slice", "Gather"):
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "Shape"
