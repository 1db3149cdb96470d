"""``pull``: what a revision is made of, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from slipway_cli import screen
from slipway_cli.artifacts import Artifacts, entry_of, pick
from slipway_cli.options import HERE, SAME_REGISTRY, Data, RegistryOptions, Revision, Where
from slipway_cli.problem import Problem
from slipway_cli.session import Session

What = Literal["model", "package", "training", "certificate"]
_BESIDE = ("signature.json", "examples.json", "certificate.json")


def pull(  # noqa: PLR0913 - one for each option of the command line
    name: str,
    what: What = "model",
    /,
    *,
    revision: Revision = "live",
    to: Path | None = None,
    output: Data = None,
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> None:
    """Bring artifacts to disk.

    Parameters
    ----------
    name
        The deployment.
    what
        model: what answers (model.onnx, or the model itself) with signature, examples and certificate;
        package: the project as a zip file;
        training: the original model file, metrics and log; certificate: the proof that both models are equal.
    to
        Folder to write to; without it, <name>-<revision>.
    output
        json or yaml: paths and digests for programs.
    """
    _, entry, artifacts, folder = pick(name, revision, to=to, registry=registry, where=where)
    if what == "training" and not artifacts.digests.get("trained"):
        raise Problem(f"revision {entry['number']} of {name} was not trained here: its model is in the package")
    folder.mkdir(parents=True, exist_ok=True)
    if what == "package":
        path = folder / "package.zip"
        saved = [(path, artifacts.save_package(path))]
    elif what == "training":
        saved = artifacts.save_training(folder)
    else:
        saved = artifacts.save_model_files(
            (artifacts.model_name, *_BESIDE) if what == "model" else _BESIDE[-1:], folder
        )
    if output is not None:
        files = [{"path": str(path), "digest": digest} for path, digest in saved]
        screen.data({"revision": entry["number"], "content": artifacts.content, "files": files}, output)
        return
    screen.say(f"revision {entry['number']} of {name}, content {artifacts.content}, checked against the log:")
    for path, digest in saved:
        screen.say(f"{digest}  {path}")


def training_log(session: Session, name: str, registry: RegistryOptions) -> str:
    """The log that the live content's training left in the registry.

    Raises:
        Problem: There is none.
    """
    artifacts = Artifacts.of(session, name, entry_of(session, name), registry)
    found = artifacts.training_file("train.log")
    if found is None:
        raise Problem(f"the live content of {name} was not trained here, or its training left no log")
    return found.decode("utf-8", "replace")
