"""What each step of the way asks of its Job, and the key of all that it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway_operator.api import ModelDeploymentSpec, parse_duration
from slipway_operator.domain.digests import short_of
from slipway_operator.domain.labels import RETRY
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.requests import (
    BuildRequest,
    Built,
    Exported,
    ExportRequest,
    Registry,
    Resolved,
    ResolveRequest,
    Trained,
    TrainRequest,
)
from slipway_operator.plan.jobs import EXPORTER_COMMAND, Container, JobSpec, platform_resources, small_resources
from slipway_operator.plan.observed import Manifest, Observed
from slipway_operator.plan.outcomes import StepKind
from slipway_operator.plan.serving import repository_for
from slipway_operator.plan.wishes import Platform, list_digest, source_key, source_of, source_secret

RESOLVE_SECONDS = 300
AROUND_SECONDS = 900
"""Time for pulling images and pushing results, around a limit that the spec sets on the project's code."""

RESOLVE = StepKind(
    name="Resolve",
    answer=Resolved,
    noun="look at the source",
    timed_out=Reason.RESOLVE_TIMED_OUT,
    out_of_memory=Reason.RESOLVE_OUT_OF_MEMORY,
    raise_timeout="the repository does not answer; check its URL and the network",
    raise_memory="ask the platform to raise jobs.memoryLimit",
)
BUILD = StepKind(
    name="Build",
    answer=Built,
    noun="build",
    timed_out=Reason.BUILD_TIMED_OUT,
    out_of_memory=Reason.BUILD_OUT_OF_MEMORY,
    raise_timeout="make the project or its packages smaller, or ask the platform to raise jobs.buildTimeoutSeconds; "
    "the annotation slipway.dev/retry runs it again",
    raise_memory="ask the platform to raise jobs.memoryLimit",
)
TRAIN = StepKind(
    name="Train",
    answer=Trained,
    noun="training",
    timed_out=Reason.TRAINING_TIMED_OUT,
    out_of_memory=Reason.TRAINING_OUT_OF_MEMORY,
    raise_timeout="raise spec.model.train.timeout, or train on less",
    raise_memory="raise spec.model.train.resources.limits.memory, or train on less",
)
EXPORT = StepKind(
    name="Export",
    answer=Exported,
    noun="export",
    timed_out=Reason.EXPORT_TIMED_OUT,
    out_of_memory=Reason.EXPORT_OUT_OF_MEMORY,
    raise_timeout="raise spec.export.timeout",
    raise_memory="raise spec.model.train.resources.limits.memory, which the export uses too, or ask the platform to "
    "raise jobs.memoryLimit",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One deployment's way, as far as it is known before its first step."""

    seen: Observed
    spec: ModelDeploymentSpec
    platform: Platform
    commit: str | None
    """The commit that a followed branch names, or that was pinned for this source."""
    followed: bool

    @property
    def registry(self) -> Registry:
        """Where results go."""
        return Registry(prefix=self.seen.settings.registry.prefix, insecure=self.seen.settings.registry.insecure)

    @property
    def repository(self) -> str:
        """The project's own repository."""
        return repository_for(self.seen)

    @property
    def source_key(self) -> str:
        """Names the source as the spec has it."""
        return source_key(self.seen.key.namespace, self.seen.key.name, self.spec)

    def key(self, step: str, *inputs: Any) -> str:
        """Key of a step: of whose it is, where results go, and what it depends on."""
        return short_of([step, *self.seen.key, self.registry.prefix, *inputs])

    def token(self, *limits: Any) -> str:
        """What makes a step that failed worth another try: a retry, other limits or Secrets, another builder."""
        settings = self.seen.settings
        secrets = [source_secret(self.spec), settings.registry.secret_name, settings.index.secret_name]
        return try_token(self.seen, secrets, *limits)


def try_token(seen: Observed, secrets: Sequence[str | None], *limits: Any) -> str:
    """Hash of what may make a failed Job worth another try; see `labels.TRY`."""
    retry, settings = seen.annotations.get(RETRY, ""), seen.settings
    builders = " ".join(filter(None, (settings.images.builder, settings.images.compiler)))
    return short_of([retry, list(secrets), builders, settings.jobs.model_dump(mode="json"), *limits])


def asks_registry(seen: Observed, verb: str) -> Container:
    """The container of a Job that only talks to the registry."""
    return Container(
        name="push",
        image=seen.settings.images.builder,
        args=(verb,),
        secrets=("registry",),
        resources=small_resources(),
    )


def resolve_spec(way: Way) -> JobSpec:
    """Asks what the ref names now; its attempts are the ticks of ``follow``."""
    settings = way.seen.settings
    return JobSpec(
        step="resolve",
        key=way.source_key,
        chain=way.source_key,
        source=way.source_key,
        token=way.token(),
        request=ResolveRequest(source=source_of(way.spec)),
        containers=(
            Container(
                name="push",
                image=settings.images.builder,
                args=("resolve",),
                secrets=("source",),
                resources=small_resources(),
            ),
        ),
        deadline_seconds=RESOLVE_SECONDS,
        secrets={"source": source_secret(way.spec)},
    )


def build_spec(way: Way) -> JobSpec:
    """Makes package, environment and images.

    A pinned commit is asked for but not part of the key: it was found for this very
    source, and the first build, which found it, did not know it.
    """
    settings, spec = way.seen.settings, way.spec
    required = tuple(p for p in (spec.model.example, None if spec.model.train else spec.model.path) if p is not None)
    interpreter = way.platform.interpreter
    key = way.key(
        "build",
        source_of(spec, commit=way.commit if way.followed else None).model_dump(mode="json"),
        way.platform.lock.model_dump(mode="json"),
        list_digest(way.platform),
        interpreter.model_dump(mode="json"),
        required,
    )
    builder, resources = settings.images.builder, platform_resources(settings)
    request = BuildRequest(
        namespace=way.seen.key.namespace,
        name=way.seen.key.name,
        source=source_of(spec, commit=way.commit),
        lock=way.platform.lock,
        interpreter=interpreter,
        registry=way.registry,
        required_files=required,
    )
    return JobSpec(
        step="build",
        key=key,
        chain=key,
        source=way.source_key,
        token=way.token(),
        request=request,
        containers=(
            Container(
                name="fetch",
                image=builder,
                args=("fetch",),
                secrets=("source", "index", "registry"),
                handover="write",
                resources=resources,
            ),
            Container(name="run", image=settings.images.compiler or builder, args=("run",), resources=resources),
            Container(
                name="push",
                image=builder,
                args=("push",),
                secrets=("registry",),
                handover="read",
                resources=resources,
            ),
        ),
        deadline_seconds=settings.jobs.build_timeout_seconds,
        secrets={
            "source": source_secret(spec),
            "index": settings.index.secret_name,
            "registry": settings.registry.secret_name,
        },
    )


def train_spec(way: Way, built: Built, *, chain: str) -> JobSpec:
    """Runs the project's training in its image. Only where the spec asks for it."""
    train = way.spec.model.train
    if train is None:
        raise ValueError("the spec asks for no training")
    env = {e.name: e.value for e in train.env if not e.name.startswith("SLIPWAY_")}
    resources = project_resources(way)
    seconds = parse_duration(train.timeout)
    request = TrainRequest(
        namespace=way.seen.key.namespace,
        name=way.seen.key.name,
        registry=way.registry,
        command=(*train.command, *train.args),
        timeout_seconds=seconds,
        model_path=way.spec.model.path,
        metrics_path=train.metrics,
    )
    key = way.key("train", built.image, request.command, env, request.model_path, request.metrics_path)
    return JobSpec(
        step="train",
        key=key,
        chain=chain,
        source=way.source_key,
        token=way.token(seconds, resources),
        request=request,
        containers=(
            Container(
                name="run",
                image=f"{way.repository}@{built.export_image}",
                command=EXPORTER_COMMAND,
                args=("train",),
                env=env,
                resources=resources,
                project_code=True,
            ),
            _push(way, "push-trained"),
        ),
        deadline_seconds=seconds + AROUND_SECONDS,
        secrets={"registry": way.seen.settings.registry.secret_name},
    )


def export_spec(way: Way, built: Built, trained: Trained | None, *, chain: str) -> JobSpec:
    """Converts the model and compares it on the example rows."""
    spec = way.spec
    resources = project_resources(way)
    seconds = parse_duration(spec.export.timeout)
    request = ExportRequest(
        namespace=way.seen.key.namespace,
        name=way.seen.key.name,
        registry=way.registry,
        model_path=spec.model.path,
        trained=trained.artifact if trained is not None else None,
        example=spec.model.example,
        max_absolute_difference=spec.export.parity.max_absolute_difference,
        max_label_flips=spec.export.parity.max_label_flips,
        timeout_seconds=seconds,
        on_failure="ServeNative" if spec.export.on_failure == "ServeNative" else None,
        function=spec.export.function,
    )
    # What says nothing is not part of the key, so that a model that was exported before keeps its export.
    silent = {"timeout_seconds", "registry"}
    silent |= {name for name in ("on_failure", "function") if getattr(request, name) is None}
    key = way.key("export", built.export_image, request.model_dump(mode="json", exclude=silent))
    fetch = Container(
        name="fetch",
        image=way.seen.settings.images.builder,
        args=("fetch-trained",),
        secrets=("registry",),
        resources=platform_resources(way.seen.settings),
    )
    return JobSpec(
        step="export",
        key=key,
        chain=chain,
        source=way.source_key,
        token=way.token(seconds, resources),
        request=request,
        containers=(
            *((fetch,) if trained is not None else ()),
            Container(
                name="run",
                image=f"{way.repository}@{built.export_image}",
                command=EXPORTER_COMMAND,
                args=("export",),
                resources=resources,
                project_code=True,
            ),
            _push(way, "push-model"),
        ),
        deadline_seconds=seconds + AROUND_SECONDS,
        secrets={"registry": way.seen.settings.registry.secret_name},
    )


def project_resources(way: Way) -> Manifest:
    """Resources for the project's code: as its training asks, also where the model is only loaded for the export."""
    train = way.spec.model.train
    own = train.resources.to_container() if train is not None else {}
    return dict(own) if own else platform_resources(way.seen.settings)


def _push(way: Way, word: str) -> Container:
    return Container(
        name="push",
        image=way.seen.settings.images.builder,
        args=(word,),
        secrets=("registry",),
        resources=platform_resources(way.seen.settings),
    )
