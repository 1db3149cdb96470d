"""What the operator asks of a Job, and what the Job answers.

The planner writes a request into the Job (environment variable
``SLIPWAY_REQUEST``, JSON); the Job's last container writes its answer into its
termination message. Both sides read this module, so that the wire between
cluster and Job is defined once. The exporter, which runs in foreign
environments without pydantic, reads the same JSON with the standard library.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from slipway_operator.domain.contents import Content

TERMINATION_MESSAGE_LIMIT = 1024
"""Bytes of an answer; the kubelet keeps 4096 a container, 12 KiB a pod."""

WORK = "/workspace"
"""The volume that the containers of one Job share."""

HANDOVER = "/handover"
"""The volume that only ``fetch`` and ``push`` of a build Job mount: out of reach of code that ``run`` starts."""

SETTINGS = "/settings"
"""Read-only: ``ca.crt`` and ``package-list.txt``, where the platform sets them."""

SECRETS = "/secrets"
"""Below it ``source``, ``index`` and ``registry``, only in containers that may."""

PROJECT = "/opt/project"
"""Where a project's files are in its image; the working directory of its code."""

ENVIRONMENT = "/opt/env"
"""The project's virtual environment in its image."""

EXPORTER = "/opt/slipway/exporter"
"""The exporter, with what it converts with in ``/opt/slipway/tools``, in the export image."""

MODEL = "/model"
"""Where the model image is mounted in a serving pod."""


class Message(BaseModel):
    """Base of everything on this wire: frozen, camelCase outside, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class GitSource(Message):
    """A Git repository at a ref, or at an exact commit once that is known."""

    kind: Literal["git"] = "git"
    url: str
    ref: str = "HEAD"
    commit: str | None = None
    path: str = "."


class SvnSource(Message):
    """A Subversion URL at a revision number, or at ``HEAD``."""

    kind: Literal["svn"] = "svn"
    url: str
    revision: str = "HEAD"
    path: str = "."


class PackageSource(Message):
    """A package that is in a registry already, by digest."""

    kind: Literal["package"] = "package"
    image: str


Source = Annotated[GitSource | SvnSource | PackageSource, Field(discriminator="kind")]


class Registry(Message):
    """Where results go: ``host[:port]/prefix`` without a scheme."""

    prefix: str
    insecure: bool = False


class ProjectLock(Message):
    """The project's own lock file, relative to the project."""

    kind: Literal["project"] = "project"
    lock_file: str = "uv.lock"


class PackageList(Message):
    """One of the platform's lists; its text is ``/settings/package-list.txt``."""

    kind: Literal["common"] = "common"
    name: str
    version: str


Lock = Annotated[ProjectLock | PackageList, Field(discriminator="kind")]


class Interpreter(Message):
    """A Python that the platform offers: images by digest."""

    python: str
    base: str
    tools: str
    """Image whose last layer is the exporter and what it converts with."""


class ResolveRequest(Message):
    """Find the commit that a branch names now."""

    source: Source


class BuildRequest(Message):
    """Make package and images from a source."""

    namespace: str
    name: str
    source: Source
    lock: Lock
    interpreter: Interpreter
    registry: Registry
    required_files: tuple[str, ...] = ()
    """Files that the spec names (example, committed model): missing ones are found before a build."""


class TrainRequest(Message):
    """Run the project's training command in its image."""

    namespace: str
    name: str
    registry: Registry
    command: tuple[str, ...]
    timeout_seconds: int
    model_path: str
    metrics_path: str | None = None


class ExportRequest(Message):
    """Convert the model and compare it on the example rows."""

    namespace: str
    name: str
    registry: Registry
    model_path: str
    trained: str | None = None
    """Artifact of the training Job; None: the model is in the project."""
    example: str
    max_absolute_difference: float
    max_label_flips: int
    timeout_seconds: int = 900
    on_failure: Literal["ServeNative"] | None = None
    """None: a model that cannot be ONNX is refused."""
    function: str | None = None
    """``module:function`` of the project that answers natively; None: the model, by its own methods."""


class LiveModel(Message):
    """The model that callers talk to now: where its signature can be read."""

    repository: str
    model_image: str
    signature: str


class VerifyRequest(Message):
    """Ask the registry whether all of a content is there, and whether callers of the live one could go on with it."""

    namespace: str
    name: str
    registry: Registry
    """With namespace and name it makes the repository that the content was pushed to."""
    content: Content
    live: LiveModel | None = None
    """None: nothing is live, or the content itself is."""


class RemoveRequest(Message):
    """Delete manifests that nothing needs any more, by digest."""

    namespace: str
    name: str
    registry: Registry
    digests: tuple[Digest, ...] = ()
    """In ``<prefix>/<namespace>/<name>``."""
    environments: tuple[Digest, ...] = ()
    """In ``<prefix>/environments``, which all share: only those that no deployment uses."""


class Failed(Message):
    """Why a container ended without a result. ``message`` says what to change."""

    ok: Literal[False] = False
    reason: str
    message: str
    retry: bool = False
    """True: it will pass by itself (an index that is down); nobody has to change anything."""


class Resolved(Message):
    """Answer to `ResolveRequest`."""

    ok: Literal[True] = True
    commit: str


class Built(Message):
    """Answer to `BuildRequest`. Every digest is ``sha256:<hex>``; images are pushed below the registry's prefix."""

    ok: Literal[True] = True
    commit: str
    """Git commit, ``r<revision>`` of Subversion, or the package's digest."""
    package: str
    """Digest of the package artifact's manifest, in ``<prefix>/<namespace>/<name>``."""
    lock: str
    """SHA-256 of the lock file's (or list's) bytes."""
    environment: str
    """Digest of interpreter + dependencies, in ``<prefix>/environments``.

    In the project's own repository when it holds wheels that were built from source.
    """
    image: str
    """Digest of interpreter + dependencies + code, in ``<prefix>/<namespace>/<name>``."""
    export_image: str
    """Digest of image + exporter layer, same repository."""
    reused: bool = False
    """True: the environment was in the registry already."""


class Trained(Message):
    """Answer to `TrainRequest`."""

    ok: Literal[True] = True
    artifact: str
    """Digest of the artifact (model file, metrics, log) in ``<prefix>/<namespace>/<name>``."""
    model: str
    """SHA-256 of the model file."""
    seconds: float
    metrics: dict[str, float] = Field(default_factory=dict)
    """At most the first ten numbers of the metrics file; all of them are in the artifact."""


class Exported(Message):
    """Answer to `ExportRequest`."""

    ok: Literal[True] = True
    image: str
    """Digest of the model image (``/model.onnx``, ``/signature.json``, ``/examples.json``, ``/certificate.json``).

    Of a model that is answered natively: with the model itself under the name of ``file``.
    """
    artifact: str
    """Digest of the CNCF ModelPack artifact of the same files."""
    onnx: str
    """SHA-256 of ``model.onnx``, or of ``file``; the runtime checks it at load."""
    signature: str
    """SHA-256 of ``signature.json``."""
    model: str
    """SHA-256 of the original model file."""
    rows: int
    max_absolute_difference: float
    label_flips: int
    engine: Literal["worker"] | None = None
    """None: ONNX Runtime; ``worker``: the model itself, in the project's environment."""
    file: str | None = None
    """Name of the model's file in the image, where the model itself answers."""
    why: str | None = None
    """Why it is not ONNX, shortened."""


class Verified(Message):
    """Answer to `VerifyRequest`."""

    ok: Literal[True] = True
    asked: int
    """Images and artifacts that the registry was asked for."""
    missing: tuple[str, ...] = ()
    """What is not there, or not all of it, in words; empty: everything is there."""
    unasked: tuple[str, ...] = ()
    """What is in another registry that does not answer us: nothing is known of it."""
    schema_fits: bool | None = None
    """Whether what callers send now would be taken and answered; None: a signature cannot be read."""
    schema_difference: str = ""
    """Why it does not fit, or why that cannot be known."""


class Removed(Message):
    """Answer to `RemoveRequest`."""

    ok: Literal[True] = True
    removed: int
    gone: int
    """Those that were not there (any more)."""
    refused: str = ""
    """Why the registry deletes nothing at all; empty: it does."""
