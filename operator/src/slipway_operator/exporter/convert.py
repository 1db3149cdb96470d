"""Conversion to ONNX with skl2onnx, with the reason where it cannot be done, and bytes that repeat."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

from .doubles import widen
from .failure import Failure
from .inside import parts
from .prepare import prepared
from .rows import Input, Rows

OPSETS: tuple[dict[str, int], ...] = ({"": 18, "ai.onnx.ml": 3}, {"": 21, "ai.onnx.ml": 3})
"""Tried in turn. The first (IR 8) is read by every ONNX Runtime since 1.15, the second by 1.18 and newer."""

IR_VERSIONS = {18: 8, 21: 10}

ADVICE = {
    "SplineTransformer": "use PolynomialFeatures or a tree model, or make the splines before the pipeline",
    "KBinsDiscretizer": "set encode='onehot-dense' or encode='ordinal'",
    "VotingClassifier": "set flatten_transform=False",
    "LinearSVC": "use LogisticRegression, or SVC(kernel='linear')",
    "VotingRegressor": "convert one of its models",
    "FunctionTransformer": "do that step before the pipeline, and fit the pipeline on its result",
    "KNNImputer": "use SimpleImputer",
    "IterativeImputer": "use SimpleImputer",
    "MissingIndicator": "use SimpleImputer, or HistGradientBoosting, which takes missing values as they are",
    "OrdinalEncoder": "set handle_unknown='use_encoded_value' and unknown_value=-1, and impute missing strings first",
    "OneHotEncoder": "set handle_unknown='ignore', and no min_frequency or max_categories",
    "ColumnTransformer": "name its columns as strings that the example has",
    "HashingVectorizer": "use TfidfVectorizer",
    "SimpleImputer": "give integers as floats, or impute with a value that the column can hold",
    "XGBClassifier": "use HistGradientBoostingClassifier (other libraries' models come in a later release)",
    "XGBRegressor": "use HistGradientBoostingRegressor (other libraries' models come in a later release)",
    "LGBMClassifier": "use HistGradientBoostingClassifier (other libraries' models come in a later release)",
    "LGBMRegressor": "use HistGradientBoostingRegressor (other libraries' models come in a later release)",
}
"""What to change in a project, by the class that does not convert."""


@dataclass(frozen=True)
class Converted:
    """An ONNX model that passed the checker."""

    proto: Any
    content: bytes
    opset: int
    tensors: dict[str, str]
    """Name in the graph of each input: converters make identifiers of what people call their columns."""


def convert(model: Any, rows: Rows, *, number: str) -> Converted:
    """Convert a fitted estimator.

    Raises:
        Failure: ``ConversionUnsupported`` or ``ConversionFailed``.
    """
    copy = prepared(model, number=number)
    inputs = rows.inputs(number)
    first: BaseException | None = None
    for opsets in OPSETS:
        try:
            proto = _to_onnx(copy, inputs, opsets)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - converters raise whatever they like
            first = first or error
            continue
        if number == "float64":
            widen(importlib.import_module("onnx"), proto, copy)
        return _finished(proto, inputs, opsets[""])
    if first is None:
        raise RuntimeError("no opset was tried")
    raise _explained(model, first) from first


def _to_onnx(model: Any, inputs: list[Input], opsets: dict[str, int]) -> Any:
    skl2onnx = importlib.import_module("skl2onnx")
    types = importlib.import_module("skl2onnx.common.data_types")
    made = {
        "FP32": types.FloatTensorType,
        "FP64": types.DoubleTensorType,
        "INT64": types.Int64TensorType,
        # Converters know numbers; the wire's booleans are cast at the graph's door.
        "BOOL": types.FloatTensorType,
        "BYTES": types.StringTensorType,
    }
    initial = [(item.name, made[item.datatype]([None, item.shape[1]])) for item in inputs]
    is_classifier = importlib.import_module("sklearn.base").is_classifier

    def converted(options: dict[str, bool] | None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return skl2onnx.convert_sklearn(
                model, name="model", initial_types=initial, target_opset=dict(opsets), options=options
            )

    if not is_classifier(model):
        return converted(None)
    try:
        return converted({"zipmap": False})
    except NameError as error:
        if "zipmap" not in str(error):
            raise
        return converted(None)  # a classifier without probabilities has no such option, and needs none


def _finished(proto: Any, inputs: list[Input], opset: int) -> Converted:
    onnx = importlib.import_module("onnx")
    if len(proto.graph.input) != len(inputs):
        taken = ", ".join(value.name for value in proto.graph.input)
        raise Failure("ConversionFailed", f"The converted model takes other inputs than the columns: {taken}.")
    tensors = {item.name: str(value.name) for item, value in zip(inputs, proto.graph.input)}  # noqa: B905
    for item in inputs:
        if item.datatype == "BOOL":
            _cast_at_door(onnx, proto, tensors[item.name])
    _classifiers_answer_in_float32(onnx, proto)
    proto.ir_version = min(proto.ir_version, IR_VERSIONS[opset])
    # skl2onnx lists the domains in the order of a set, which changes from process to process.
    domains = sorted(proto.opset_import, key=lambda used: used.domain)
    del proto.opset_import[:]
    proto.opset_import.extend(domains)
    proto.producer_name = "slipway"
    proto.producer_version = proto.domain = proto.doc_string = proto.graph.doc_string = ""
    proto.model_version = 0
    del proto.metadata_props[:]
    content = proto.SerializeToString(deterministic=True)
    check(content)
    return Converted(proto, content, opset, tensors)


def check(content: bytes) -> None:
    """Check an ONNX model, and that all of it is in this one file.

    Raises:
        Failure: ``ConversionFailed``.
    """
    onnx = importlib.import_module("onnx")
    try:
        proto = onnx.load_model_from_string(content)
        outside = _tensor_outside(proto)
        if outside is None:
            onnx.checker.check_model(proto, full_check=True)
    except MemoryError:
        raise
    except Exception as error:
        raise Failure("ConversionFailed", f"The ONNX model is not valid: {str(error)[:500]}") from error
    if outside is not None:
        raise Failure("ConversionFailed", f"Tensor {outside!r} is outside the file. Save it within the model.")


def _tensor_outside(proto: Any) -> str | None:
    helper = importlib.import_module("onnx.external_data_helper")
    for tensor in helper._get_all_tensors(proto):  # noqa: SLF001 - onnx has no public way to ask
        if helper.uses_external_data(tensor):
            return str(tensor.name)
    return None


def _cast_at_door(onnx: Any, proto: Any, name: str) -> None:
    graph = proto.graph
    inner = f"{name}_as_number"
    for node in graph.node:
        node.input[:] = [inner if used == name else used for used in node.input]
    door = next(value for value in graph.input if value.name == name)
    door.type.tensor_type.elem_type = onnx.TensorProto.BOOL
    graph.node.insert(
        0, onnx.helper.make_node("Cast", [name], [inner], to=onnx.TensorProto.FLOAT, name=f"Cast_{inner}")
    )


def _classifiers_answer_in_float32(onnx: Any, proto: Any) -> None:
    """Correct a declared type: tree classifiers give float32 whatever they take, and skl2onnx says float64."""
    scores = {
        name
        for node in proto.graph.node
        if node.op_type in {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}
        for name in node.output
    }
    for value in proto.graph.output:
        kind = value.type.tensor_type
        if value.name in scores and kind.elem_type == onnx.TensorProto.DOUBLE:
            kind.elem_type = onnx.TensorProto.FLOAT


def _explained(model: Any, error: BaseException) -> Failure:
    # Some raise without a word.
    text = str(error).strip() or type(error).__name__
    culprit = _culprit(model, error)
    if culprit is None:
        return Failure("ConversionFailed", f"{type(model).__name__} cannot be converted: {text[:500]}")
    path, part = culprit
    kind = type(part).__name__
    where = f"Step {path!r} ({kind})" if path else f"{kind}"
    another = "use another estimator for that step, or do that step before the pipeline" if path else "use another one"
    advice = ADVICE.get(kind, another)
    why = "" if type(error).__name__.startswith("Missing") else f" ({text[:200].splitlines()[0]})"
    return Failure("ConversionUnsupported", f"{where} cannot be converted to ONNX{why}: {advice}.")


def _culprit(model: Any, error: BaseException) -> tuple[str, Any] | None:
    """Find the part that has no converter, or whose converter gave up."""
    known = importlib.import_module("skl2onnx._supported_operators").sklearn_operator_name_map
    inside = list(parts(model))
    if type(error).__name__.startswith("Missing"):
        for path, part in inside:
            if type(part) not in known and f"{type(part).__name__}'" in str(error):
                return path, part
    named = _converter_of(error)
    for path, part in inside:
        kind = type(part).__name__
        if kind in ADVICE and (f"{kind} " in str(error) or f"'{kind}'" in str(error) or named == kind):
            return path, part
    for path, part in inside:
        if type(part).__name__ == named:
            return path, part
    return None


def _converter_of(error: BaseException) -> str | None:
    """Give the class whose converter raised: the innermost frame that has an ``operator`` of skl2onnx."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        operator = trace.tb_frame.f_locals.get("operator")
        raw = getattr(operator, "raw_operator", None)
        if raw is not None:
            found = type(raw).__name__
        trace = trace.tb_next
    return found
