"""Deletes from the registry what nothing needs any more, by digest, in one project's repository only."""

from __future__ import annotations

import re

from slipway_operator.builder import images
from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.progress import say, step
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Removed, RemoveRequest

_LABEL = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def remove(request: RemoveRequest, place: Workplace) -> Removed:
    """Delete manifests; what is gone already is fine, so that it can be repeated.

    The registry's own garbage collection frees the space.

    Raises:
        StepFailed: ``InvalidRequest``, or the registry's.
    """
    for word in (request.namespace, request.name):
        if not _LABEL.fullmatch(word) or ".." in word:
            raise StepFailed("InvalidRequest", f"{word[:80]!a} is no name of Kubernetes: nothing is removed")
    own = images.repository_of(request.registry, request.namespace, request.name)
    shared = images.environments_of(request.registry)
    references = [f"{own}@{digest}" for digest in request.digests]
    references += [f"{shared}@{digest}" for digest in request.environments]
    registry = images.client(request.registry, place)
    removed = 0
    with step(f"removing {len(references)} manifests"):
        for reference in references:
            try:
                there = registry.delete(reference)
            except StepFailed as failed:
                if failed.reason == RegistryReason.UNSUPPORTED:
                    say(f"the registry deletes nothing: {failed.message}")
                    return Removed(removed=removed, gone=0, refused=_refusal(request))
                if failed.reason == RegistryReason.ACCESS_DENIED:
                    raise StepFailed(failed.reason, _denial(request, reference)) from None
                raise
            removed += there
            say(f"{'removed' if there else 'gone already'}: {reference}")
    return Removed(removed=removed, gone=len(references) - removed)


def _refusal(request: RemoveRequest) -> str:
    return (
        f"the registry of {request.registry.prefix} does not let anybody delete: images that no content needs stay "
        "in it. Allow deletion there, or set cleanUp.registry to false so that it is not asked"
    )


def _denial(request: RemoveRequest, reference: str) -> str:
    return (
        f"the registry does not let Slipway delete {reference}: give the Secret of {request.registry.prefix} "
        "credentials that may delete, or set cleanUp.registry to false so that it is not asked"
    )
