"""A content: what is served, named by the digest of all that decides on an answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from slipway_operator.domain.digests import sha256_of, short10


class Content(BaseModel):
    """Digests of everything that makes a model's answers; equal contents answer equally.

    Replicas, autoscaling and resources are not part of it, nor is how the model gets
    into the pod. A field that a later release adds must default to None, which is not
    part of the digest: contents that are in logs already keep their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    commit: str
    package: str
    lock: str
    environment: str
    image: str
    model: str
    onnx: str
    model_image: str
    artifact: str
    signature: str
    runtime: str
    """Reference of the runtime image by digest: an upgrade of Slipway moves no model."""
    trained: str | None = None
    """Artifact of the training, where there was one."""
    engine: Literal["worker"] | None = None
    """None: ONNX Runtime; ``worker``: the model itself answers, in the project's environment beside the runtime."""
    worker: str | None = None
    """Digest of the image that it answers in."""
    file: str | None = None
    """Name of its file in the model image; ``onnx`` is this file's digest then."""
    serving: dict[str, Any] = {}
    """The serving part of the spec that decides on answers; none in this release."""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, ``sha256:<hex>``."""
        return sha256_of(self.model_dump(by_alias=True, mode="json", exclude_none=True, exclude_defaults=False))

    @property
    def short(self) -> str:
        """Ten hex digits: Deployments, lanes and ``model_version`` go by it."""
        return short10(self.digest)
