"""Trees behind a float64 wire: they compare as scikit-learn's do, to the last bit.

HistGradientBoosting compares float64 with float64: from version 3 of
``ai.onnx.ml`` a tree ensemble takes its thresholds as tensors of float64
(``nodes_values_as_tensor``). All other trees cast features to float32 first: so
does the graph, after whatever came before them was computed in float64.
"""

from __future__ import annotations

from typing import Any

from .foreign import np
from .inside import parts

_FLOATS = ("nodes_values", "nodes_hitrates", "class_weights", "target_weights", "base_values")


def widen(onnx: Any, proto: Any, model: Any) -> None:
    """Put the float64 thresholds and leaves of HistGradientBoosting into the graph's tree ensembles, in place."""
    fitted = [_flat(part) for _, part in parts(model) if hasattr(part, "_predictors")]
    narrow = []
    for node in proto.graph.node:
        if node.op_type not in {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        held = np.array(attributes["nodes_values"].floats, dtype="float32")
        weights = "class_weights" if "class_weights" in attributes else "target_weights"
        leaves = np.array(attributes[weights].floats, dtype="float32")
        for thresholds, values in fitted:
            if np.array_equal(held, thresholds.astype("float32")) and np.array_equal(leaves, values.astype("float32")):
                _replace(onnx, node, {"nodes_values": thresholds, weights: values})
                break
        else:
            narrow.append(node)
    _cast_before(onnx, proto, narrow)
    for used in proto.opset_import:
        if used.domain == "ai.onnx.ml":
            used.version = max(used.version, 3)


def _cast_before(onnx: Any, proto: Any, trees: list[Any]) -> None:
    """Let trees see float32, each distinct input cast once and right before its first use."""
    names = {node.name for node in trees}
    made: set[str] = set()
    ordered = []
    for node in proto.graph.node:
        if node.name in names:
            source = node.input[0]
            if source not in made:
                made.add(source)
                narrow = onnx.helper.make_node(
                    "Cast", [source], [f"{source}_float32"], to=onnx.TensorProto.FLOAT, name=f"Cast_{source}_float32"
                )
                ordered.append(narrow)
            node.input[0] = f"{source}_float32"
        ordered.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _flat(boosting: Any) -> tuple[Any, Any]:
    """Give all thresholds (0 in leaves) and all leaf values, in the order in which skl2onnx writes them."""
    thresholds, values = [], []
    for iteration in boosting._predictors:  # noqa: SLF001 - scikit-learn has no public name for its trees
        for predictor in iteration:
            nodes = predictor.nodes
            field = "num_threshold" if "num_threshold" in nodes.dtype.names else "threshold"
            leaf = nodes["is_leaf"] != 0
            thresholds.append(np.where(leaf, 0.0, nodes[field]))
            values.append(nodes["value"][leaf])
    return np.concatenate(thresholds), np.concatenate(values)


def _replace(onnx: Any, node: Any, exact: dict[str, Any]) -> None:
    kept = []
    for attribute in node.attribute:
        if attribute.name not in _FLOATS:
            kept.append(attribute)
            continue
        values = exact.get(attribute.name)
        if values is None:
            values = np.array(attribute.floats, dtype="float64")
        tensor = onnx.numpy_helper.from_array(values.astype("float64"), f"{attribute.name}_as_tensor")
        kept.append(onnx.helper.make_attribute(f"{attribute.name}_as_tensor", tensor))
    kept = sorted(kept, key=lambda attribute: attribute.name)
    copies = [type(attribute).FromString(attribute.SerializeToString()) for attribute in kept]
    del node.attribute[:]
    node.attribute.extend(copies)
