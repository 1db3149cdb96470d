"""Asks the registry whether a content could be served: all of it is there, and callers could go on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError

from slipway_operator.builder import images
from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.progress import say, step
from slipway_operator.builder.pull import pull_model
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.conditions import clipped
from slipway_operator.domain.requests import Verified, VerifyRequest
from slipway_operator.domain.signatures import Signature, difference

_ASK_AT_ONCE = 4
_DIFFERENCE_LIMIT = 300
_NO_ANSWER = frozenset({RegistryReason.ACCESS_DENIED, RegistryReason.NOT_TRUSTED, RegistryReason.UNAVAILABLE})


@dataclass(frozen=True, kw_only=True)
class Part:
    """One image or artifact of a content.

    Attributes:
        name: As people call it.
        references: Where it may be; one place is enough.
        client: Whom to ask.
        foreign: It is in another registry than the platform's, which may not answer us.
    """

    name: str
    references: tuple[str, ...]
    client: RegistryClient
    foreign: bool = False


def verify(request: VerifyRequest, place: Workplace) -> Verified:
    """Ask for every manifest, config and layer of a content, and compare its signature with the live one's.

    Raises:
        StepFailed: The registry gives no answer, so that nothing is known.
    """
    parts = list(parts_of(request, place))
    with step(f"asking for {len(parts)} images and artifacts"), ThreadPoolExecutor(_ASK_AT_ONCE) as beside:
        lacks = list(beside.map(_lacks, parts))
    missing = tuple(text for text in lacks if text)
    unasked = tuple(part.name for part, text in zip(parts, lacks, strict=True) if text is None)
    for text in missing:
        say(f"missing: {text}")
    fits, why = _schema(request, place)
    say(f"schema: {why or 'fits'}")
    return Verified(
        asked=len(parts) - len(unasked),
        missing=missing,
        unasked=unasked,
        schema_fits=fits,
        schema_difference=clipped(why, _DIFFERENCE_LIMIT),
    )


def parts_of(request: VerifyRequest, place: Workplace) -> Iterator[Part]:
    """Everything that a content is made of and that a registry holds."""
    ours, content = images.client(request.registry, place), request.content
    own = images.repository_of(request.registry, request.namespace, request.name)
    shared = images.environments_of(request.registry)
    yield Part(name="project image", references=(f"{own}@{content.image}",), client=ours)
    yield Part(
        name="environment image",
        # Those with packages that were built from source are the project's own.
        references=(f"{shared}@{content.environment}", f"{own}@{content.environment}"),
        client=ours,
    )
    yield Part(name="model image", references=(f"{own}@{content.model_image}",), client=ours)
    yield Part(name="ModelPack artifact", references=(f"{own}@{content.artifact}",), client=ours)
    yield Part(name="package", references=(f"{own}@{content.package}",), client=ours)
    if content.worker is not None:
        yield Part(name="worker image", references=(f"{own}@{content.worker}",), client=ours)
    if content.trained is not None:
        yield Part(name="training artifact", references=(f"{own}@{content.trained}",), client=ours)
    foreign = _host(content.runtime) != _host(request.registry.prefix)
    client = images.client(request.registry.model_copy(update={"insecure": False}), place) if foreign else ours
    yield Part(name="runtime image", references=(content.runtime,), client=client, foreign=foreign)


def _lacks(part: Part) -> str | None:
    """What a part lacks, in words; empty: nothing; None: its registry does not answer us."""
    found = "all of it"
    for reference in part.references:
        try:
            lacks = part.client.lacks(reference)
        except StepFailed as failed:
            if part.foreign and failed.reason in _NO_ANSWER:
                say(f"not asked: {part.name}: {failed.message}")
                return None
            raise
        if lacks is None:
            return ""
        # Of two places, the one that has some of it tells more.
        found = lacks if found == "all of it" else found
    digest = part.references[0].rpartition("@")[2]
    whole = f"{part.name} {digest[: len('sha256:') + 12]}"
    return whole if found == "all of it" else f"{whole} ({found})"


def _schema(request: VerifyRequest, place: Workplace) -> tuple[bool | None, str]:
    if request.live is None:
        return True, ""
    content, live = request.content, request.live
    own = images.repository_of(request.registry, request.namespace, request.name)
    client = images.client(request.registry, place)
    target = _signature(client, f"{own}@{content.model_image}", content.signature, place)
    if target is None:
        return None, "the schema is not compared: the target's model is gone"
    now = _signature(client, f"{live.repository}@{live.model_image}", live.signature, place)
    if now is None:
        return None, "the schema is not compared: the model that is live is gone from the registry"
    if isinstance(target, str) or isinstance(now, str):
        return None, f"the schema is not compared: {target if isinstance(target, str) else now}"
    found = difference(now, target)
    return found is None, found or ""


def _signature(client: RegistryClient, image: str, digest: str, place: Workplace) -> Signature | str | None:
    """The signature of a model; a sentence where it cannot be read; None where it is not there."""
    raw = _signature_bytes(client, image, digest, place)
    if raw is None:
        return None
    if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
        return f"{image} holds another signature.json than its export made"
    try:
        return Signature.model_validate_json(raw)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        return f"signature.json of {image} cannot be read at {clipped(where, 60) or 'its beginning'}"


def _signature_bytes(client: RegistryClient, image: str, digest: str, place: Workplace) -> bytes | None:
    try:
        # The ModelPack artifact has the file as a layer of its own: no model is downloaded for it.
        return client.blob(f"{image.rpartition('@')[0]}@{digest}")
    except StepFailed as failed:
        if failed.reason != RegistryReason.NOT_FOUND:
            raise
    with place.scratch() as scratch:
        try:
            pull_model(image, scratch, place, insecure=client.insecure)
        except StepFailed as failed:
            if failed.reason in {RegistryReason.NOT_FOUND, "ModelImageInvalid"}:
                say(failed.message)
                return None
            raise
        return (scratch / "signature.json").read_bytes()


def _host(reference: str) -> str:
    return reference.partition("/")[0]
