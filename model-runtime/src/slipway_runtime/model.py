"""A model that is being served: everything that answers for one content."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway_runtime.dataplane import DataPlane, PlaneLimits
from slipway_runtime.engines.base import Engine
from slipway_runtime.engines.model_files import check_model, prove, read_examples, read_file, read_model
from slipway_runtime.engines.onnx import OnnxEngine
from slipway_runtime.engines.rows import prove_rows
from slipway_runtime.errors import CannotServe, SlipwayRuntimeError
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.reference import read_reference
from slipway_runtime.observing.values import ValueCounts
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.answers import AnswerWriter
from slipway_runtime.protocol.packing import Packer
from slipway_runtime.protocol.rows import RowReader, RowWriter
from slipway_runtime.protocol.signature import Signature, read_signature

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """One model in one version."""

    name: str
    version: str
    """The short digest of the content that it belongs to."""
    digest: str
    """``sha256:…`` of the ONNX file."""
    signature: Signature
    metrics: Metrics
    plane: DataPlane
    aligner: Aligner
    packer: Packer
    writer: AnswerWriter
    rows: RowReader
    objects: RowWriter
    example: dict[str, Any]
    """A known good value for each column; empty where the model takes no rows."""
    request: str
    """A known good infer request, for messages; empty where it would be too long."""

    @property
    def makers(self) -> tuple[tuple[str, str], ...]:
        """What every answer says of who made it."""
        return (("slipway-content", self.version), ("slipway-model-digest", self.digest))

    @property
    def makers_in_http(self) -> bytes:
        """The same as header lines."""
        return "".join(f"{name}: {value}\r\n" for name, value in self.makers).encode()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Where the worker is that answers instead of ONNX Runtime."""

    socket: Path
    model: str
    """Name of the file that it loads, in the model's folder: its digest is the model's."""
    seconds: float = 30.0
    """How long a prediction may take."""
    start_seconds: float = 300.0
    """How long it may take to load its model."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how much of it at once."""

    folder: Path
    name: str
    version: str
    digest: str
    max_rows: int = 65_536
    watched_features: int = 100
    """Columns whose values are counted at most; each costs about a dozen series of metrics."""
    plane: PlaneLimits = field(default_factory=PlaneLimits)
    worker: WorkerOptions | None = None
    """None: the model is ONNX."""


def load_model(options: ModelOptions, metrics: Metrics) -> Model:
    """Load a model, compare it with its digest and with its recorded answers, and warm it up.

    Raises:
        CannotServe: With a sentence, if it must not be served.
    """
    worker = options.worker
    model = b""
    if worker is None:
        model = read_model(options.folder, options.digest)
    else:
        check_model(options.folder, options.digest, worker.model)
    signature = read_signature(read_file(options.folder, "signature.json"))
    examples = read_examples(read_file(options.folder, "examples.json"), signature)
    engine: Engine
    if worker is None:
        engine = OnnxEngine(model, signature)
        del model  # the engine has what it needs of it
    else:
        from slipway_runtime.engines.worker import WorkerEngine  # noqa: PLC0415 -- most models are ONNX

        engine = WorkerEngine(worker.socket, signature, seconds=worker.seconds, start_seconds=worker.start_seconds)
    feeds, rows = prove(engine, signature, examples)
    prove_rows(engine, signature, feeds, rows)
    _watch_values(options, signature, metrics)
    aligner = Aligner(signature, max_rows=options.max_rows)
    packer = Packer(signature, max_rows=options.max_rows)
    plane = DataPlane(engine, metrics, batched=signature.is_batched, limits=options.plane, matrix=packer.matrix)
    try:
        plane.warm_up(feeds, rows)
    except SlipwayRuntimeError as error:
        raise CannotServe(f"the model answered the example rows, and then no more: {error.message}") from error
    return Model(
        name=options.name,
        version=options.version,
        digest=options.digest,
        signature=signature,
        metrics=metrics,
        plane=plane,
        aligner=aligner,
        packer=packer,
        writer=AnswerWriter(signature, options.name, options.version),
        rows=RowReader(signature, examples.first_row(signature), max_rows=options.max_rows),
        example=examples.first_row(signature) if signature.takes_columns else {},
        request=examples.request(signature),
        objects=RowWriter(signature, options.name, options.version),
    )


def _watch_values(options: ModelOptions, signature: Signature, metrics: Metrics) -> None:
    """Count values against the model's reference, if it has one that can be read."""
    if not options.watched_features:
        return
    try:
        raw = read_file(options.folder, "reference.json")
        metrics.watch(ValueCounts(read_reference(raw, signature, most=options.watched_features), signature))
    except CannotServe:
        _log.info("the model was exported without a reference; its values are not counted")
    except ValueError as error:
        _log.warning("values are not counted: %s", error)
