"""The command ``slipway``.

Exit code 0 means done, 1 a failure that is explained on standard error, 2 a command line
that cannot be understood.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TextIO

from cyclopts import App, CycloptsError, Parameter

from slipway_cli.package import Made, Wanted, make
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.progress import readable

_BOLD, _RED, _YELLOW = "1", "31", "33"
_SHOWN = 5

app = App(
    name="slipway",
    help="Take a data-science project from a laptop to production.",
    version=lambda: version("slipway-cli"),
    help_format="plaintext",
)


@app.command
def package(
    folder: Annotated[Path, Parameter(name="DIR")] = Path(),
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    push: str | None = None,
    dirty: Annotated[bool, Parameter(negative=())] = False,
    insecure: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Package a project: the same bytes that a build in the cluster makes of the same commit.

    Example: slipway package examples/flight-delay -o flight-delay.zip

    Example: slipway package . --push registry.example.com/airline/flight-delay

    Parameters
    ----------
    folder
        The project. In a Git checkout the files of its commit are packaged, elsewhere all files.
    output
        File to write the package to.
    push
        Place in a registry to push it to, as host/repository or host/repository:tag.
    dirty
        Package the files as they are on disk, not as they were committed.
    insecure
        The registry speaks plain HTTP.
    """
    try:
        made = make(Wanted(folder=folder, output=output, push=push, dirty=dirty, insecure=insecure))
    except StepFailed as failed:
        _say(sys.stderr, f"{_coloured(sys.stderr, _RED, f'slipway: {failed.reason}:')} {failed.message}")
        return 1
    _show(made)
    if output is None and push is None:
        _say(sys.stderr, "nothing is kept: add -o FILE or --push host/repository")
    return 0


def _show(made: Made) -> None:
    facts = {
        "digest": made.digest,
        "sha256": made.sha256,
        "commit": made.commit,
        "files": str(made.files),
        "size": f"{made.size} bytes ({readable(made.size)})",
    }
    if made.image is not None:
        facts["image"] = made.image
    for name, value in facts.items():
        _say(sys.stdout, f"{_coloured(sys.stdout, _BOLD, f'{name:<8}')}{value}")
    if made.untracked:
        more = f" and {len(made.untracked) - _SHOWN} more" if len(made.untracked) > _SHOWN else ""
        names = ", ".join(ascii(path) for path in made.untracked[:_SHOWN])
        _say(sys.stderr, f"{_coloured(sys.stderr, _YELLOW, 'left out')}, as Git does not know it: {names}{more}")


def _say(stream: TextIO, text: str) -> None:
    print(text, file=stream, flush=True)


def _coloured(stream: TextIO, code: str, text: str) -> str:
    """Text in colour, where a person looks who wants it (https://no-color.org)."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        # cyclopts has said what it did not understand.
        return 2
    except KeyboardInterrupt:
        _say(sys.stderr, "slipway: interrupted")
        return 130
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
