"""``kubectl_complete-slipway``: kubectl runs it with the words so far and reads what could come next.

One candidate a line, a tab and a description behind it; the last line is a directive of
cobra: ``:4`` for "no file names", ``:0`` for file names too.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence

from slipway_cli import screen
from slipway_cli.app import SUMMARIES, app

_NO_FILES, _FILES = ":4", ":0"
_TAKES_FILES = {"--kubeconfig", "--to", "--filename"}
_CLUSTER_OPTIONS = {"-n", "--namespace", "--context"}
_FOLDER_COMMANDS = {"deploy", "package"}
_SECOND = {
    "logs": ("runtime", "build", "train", "export", "resolve", "verify", "remove"),
    "pull": ("model", "package", "training", "certificate"),
    "rollback": ("previous",),
    "diff": ("previous", "live"),
}
_REVISIONS = {"rollback", "diff"}
_SECONDS = 3


def main(words: Sequence[str] | None = None) -> int:
    """Print candidates for the last word."""
    screen.lenient()
    given = list(sys.argv[1:] if words is None else words) or [""]
    found, directive = candidates(given[:-1], given[-1])
    sys.stdout.write("".join(f"{line}\n" for line in [*found, directive]))
    return 0


def candidates(before: Sequence[str], word: str) -> tuple[list[str], str]:
    """What the last word could become.

    Args:
        before: The words before it.
        word: What has been typed of it.

    Returns:
        Lines, and cobra's directive.
    """
    if not before:
        return [f"{name}\t{words}" for name, words in SUMMARIES.items() if name.startswith(word)], _NO_FILES
    command = before[0]
    if before[-1] in _CLUSTER_OPTIONS:
        found = _asked(before, before[-1])
    elif before[-1] in _VALUED or (command in _FOLDER_COMMANDS and not word.startswith("-")):
        return [], _FILES if before[-1] in _TAKES_FILES or command in _FOLDER_COMMANDS else _NO_FILES
    elif word.startswith("-"):
        found = list(_options(command))
    elif _places(before[1:]) == 0:
        found = _asked(before, "names")
    else:
        found = [*_SECOND.get(command, ()), *(_asked(before, "revisions") if command in _REVISIONS else [])]
    return [line for line in found if line.startswith(word)], _NO_FILES


def _options(command: str) -> Iterator[str]:
    if command not in SUMMARIES:
        return
    for argument in app[command].assemble_argument_collection(parse_docstring=True):
        for name in argument.names:
            if name.startswith("-"):
                yield f"{name}\t{argument.parameter.help or ''}".rstrip()


def _places(words: Sequence[str]) -> int:
    """How many of the words are no options and no values of options."""
    count, value = 0, False
    for word in words:
        if value:
            value = False
        elif word.startswith("-"):
            value = "=" not in word and word in _VALUED
        else:
            count += 1
    return count


_VALUED = {
    "-n", "--namespace", "--context", "--kubeconfig", "-o", "--output", "--timeout", "--why", "--id", "--content",
    "--revision", "--to", "--registry", "--only", "-c", "--container", "--tail", "--since", "--python",
}  # fmt: skip


def _asked(words: Sequence[str], what: str) -> list[str]:
    """Names from the cluster; nothing where it does not answer at once, as completion must never be in the way."""
    from slipway_cli.problem import Problem

    with contextlib.suppress(Problem):
        return list(_from_cluster(words, what))
    return []


def _from_cluster(words: Sequence[str], what: str) -> Iterator[str]:
    from slipway_cli.observe import read_log
    from slipway_cli.options import Where
    from slipway_cli.session import MODEL_DEPLOYMENTS, Session, contexts

    given = dict(itertools.pairwise(words))
    where = Where(
        namespace=given.get("-n") or given.get("--namespace"),
        context=given.get("--context"),
        kubeconfig=given.get("--kubeconfig"),
    )
    if what == "--context":
        yield from contexts(where.kubeconfig)
        return
    session = Session.open(where)
    session.seconds = _SECONDS
    if what in {"-n", "--namespace"}:
        yield from (str(item["metadata"]["name"]) for item in session.list("/api/v1/namespaces"))
    elif what == "names":
        yield from (str(item["metadata"]["name"]) for item in session.list(session.path(MODEL_DEPLOYMENTS)))
    else:
        name = next((word for word in words[1:] if not word.startswith("-")), "")
        yield from (f"{e['number']}\t{e.get('cause')}: {e.get('why')}" for e in reversed(read_log(session, name)))


if __name__ == "__main__":
    sys.exit(main())
