"""The verbs of ``slipway-builder``, and what each is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from slipway_operator.builder import build, export, training
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.pull import pull_model
from slipway_operator.builder.remove import remove
from slipway_operator.builder.verify import verify
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import (
    BuildRequest,
    ExportRequest,
    Message,
    RemoveRequest,
    ResolveRequest,
    TrainRequest,
    VerifyRequest,
)

M = TypeVar("M", bound=Message)

USAGE = """Usage: slipway-builder VERB

  resolve                        find the commit that a branch names now
  fetch, run, push               the three containers of a build
  push-trained, fetch-trained    a trained model, to and from the registry
  push-model                     the exported model as image and artifact
  verify                         ask whether all of a content is in the registry, and its schema fits
  remove                         delete what nothing needs any more from the registry
  pull-model IMAGE FOLDER [--insecure]
                                 unpack a model image, where nodes cannot mount one
  probe                          end at once, without an error

The request is in SLIPWAY_REQUEST as JSON; the answer goes to the termination message."""


def call(arguments: Sequence[str], place: Workplace) -> Message | None:
    """Run one verb.

    Returns:
        Its answer; None for a container that is not the Job's last.

    Raises:
        StepFailed: It ended without a result.
    """
    match list(arguments):
        case ["probe"]:
            return None
        case ["pull-model", image, folder, *rest] if rest in ([], ["--insecure"]):
            pull_model(image, Path(folder), place, insecure=bool(rest))
            return None
        case [verb] if verb in _VERBS:
            return _VERBS[verb](place)
    raise StepFailed("InvalidRequest", f"{' '.join(arguments)[:100]!r} is no verb of slipway-builder")


def _request(kind: type[M], place: Workplace) -> M:
    try:
        return kind.model_validate_json(place.variables.get("SLIPWAY_REQUEST", ""))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StepFailed("InvalidRequest", f"SLIPWAY_REQUEST cannot be read: {where}: {first['msg']}") from None


_VERBS: dict[str, Callable[[Workplace], Message | None]] = {
    "resolve": lambda place: build.resolve(_request(ResolveRequest, place), place),
    "fetch": lambda place: build.fetch(_request(BuildRequest, place), place),
    "run": lambda place: build.run(_request(BuildRequest, place), place),
    "push": lambda place: build.push(_request(BuildRequest, place), place),
    "push-trained": lambda place: training.push_trained(_request(TrainRequest, place), place),
    "fetch-trained": lambda place: training.fetch_trained(_request(ExportRequest, place), place),
    "push-model": lambda place: export.push_model(_request(ExportRequest, place), place),
    "verify": lambda place: verify(_request(VerifyRequest, place), place),
    "remove": lambda place: remove(_request(RemoveRequest, place), place),
}
