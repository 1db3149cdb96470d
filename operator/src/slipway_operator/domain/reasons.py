"""Reasons of conditions and events that the operator itself gives.

A Job gives reasons of its own in its answer (``RepositoryNotFound``,
``LockFileMissing``, …); they are passed on as they are when they are well formed.
"""

from __future__ import annotations

import re
from enum import StrEnum

_WELL_FORMED = re.compile(r"[A-Z][A-Za-z0-9]{2,63}")


class Reason(StrEnum):
    """Why a condition is as it is. CamelCase, as Kubernetes has it; doubles as an event's reason."""

    # All is well
    SERVING = "Serving"
    NOTHING_LIVE = "NothingLive"
    SETTLED = "Settled"
    # On the way
    RESOLVING = "Resolving"
    BUILDING = "Building"
    TRAINING = "Training"
    EXPORTING = "Exporting"
    ROLLING_OUT = "RollingOut"
    GOING_LIVE = "GoingLive"
    SCALING = "Scaling"
    WAITING_TO_RETRY = "WaitingToRetry"
    PROBING_NODES = "ProbingNodes"
    CANARY = "Canary"
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"
    # Held: a person decided, or a limit did
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    RESUMED = "Resumed"
    CANNOT_ROLL_BACK = "CannotRollBack"
    REQUEST_REFUSED = "RequestRefused"
    # A person must change something, or wait
    INVALID_SPEC = "InvalidSpec"
    INTERPRETER_NOT_OFFERED = "InterpreterNotOffered"
    PACKAGE_LIST_NOT_FOUND = "PackageListNotFound"
    IMAGE_CANNOT_BE_PULLED = "ImageCannotBePulled"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason's name
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105 - as above
    CLAIM_NOT_FOUND = "ClaimNotFound"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    CONTAINER_CANNOT_START = "ContainerCannotStart"
    RESOLVE_TIMED_OUT = "ResolveTimedOut"
    BUILD_TIMED_OUT = "BuildTimedOut"
    TRAINING_TIMED_OUT = "TrainingTimedOut"
    EXPORT_TIMED_OUT = "ExportTimedOut"
    RESOLVE_OUT_OF_MEMORY = "ResolveOutOfMemory"
    BUILD_OUT_OF_MEMORY = "BuildOutOfMemory"
    TRAINING_OUT_OF_MEMORY = "TrainingOutOfMemory"
    EXPORT_OUT_OF_MEMORY = "ExportOutOfMemory"
    SERVING_OUT_OF_MEMORY = "ServingOutOfMemory"
    WORK_VOLUME_FULL = "WorkVolumeFull"
    POD_LOST = "PodLost"
    STEP_FAILED = "StepFailed"
    RUNTIME_FAILED = "RuntimeFailed"
    ROLLOUT_TIMED_OUT = "RolloutTimedOut"
    NAME_TAKEN = "NameTaken"
    LOG_BROKEN = "LogBroken"
    NOT_YET_SUPPORTED = "NotYetSupported"


def well_formed(reason: str, *, otherwise: Reason) -> str:
    """A foreign reason if it is one that Kubernetes takes, else the given one."""
    return reason if _WELL_FORMED.fullmatch(reason) else otherwise.value
