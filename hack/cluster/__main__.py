"""The cluster's command line: `python3 -m cluster up | status | down | purge | kubeconfig | registry`.

``kubeconfig`` and ``registry`` print one line to standard output and start nothing.
"""

from __future__ import annotations

import argparse
import sys

from cluster import choice, foreign, host, kindcluster, local, status
from cluster.components import Machine, Programs, components
from cluster.layout import Layout
from tools import say
from tools.refusal import Refused

COMMANDS = {
    "up": "start the cluster, or what of it is missing",
    "status": "say which part runs, since when, and what to do about one that does not",
    "down": "stop the cluster and leave nothing of it running, mounted or configured; its data stay",
    "purge": "stop the cluster and delete its data too",
    "kubeconfig": "print the path of the kubeconfig; starts nothing",
    "registry": "print the prefix of the registry that this machine, nodes and pods reach; starts nothing",
}


def up(chosen: choice.Choice) -> int:
    """Start the chosen cluster."""
    if chosen.kind == "context":
        foreign.check(chosen.context)
    elif chosen.kind == "kind":
        kindcluster.up()
    else:
        local.up(Layout.of_machine())
    return 0


def down(chosen: choice.Choice, *, purge: bool) -> int:
    """Stop the chosen cluster; one of somebody else is left alone."""
    if chosen.kind == "context":
        say.line(f"✓ SLIPWAY_CONTEXT names {chosen.context!r}, a cluster of yours: it is left as it is.")
    elif chosen.kind == "kind":
        kindcluster.down(purge=purge)
    else:
        local.down(Layout.of_machine(), purge=purge)
    return 0


def show(chosen: choice.Choice) -> int:
    """Print the state of the chosen cluster; 0 where all is well."""
    if chosen.kind == "context":
        foreign.check(chosen.context)
        return 0
    if chosen.kind == "kind":
        return kindcluster.status()
    layout = Layout.of_machine()
    if not layout.kubeconfig.exists():
        say.line("✗ There is no cluster on this machine: `make cluster-up` starts one.")
        return 1
    host.check()
    # Paths do not matter here: what runs is found by what was recorded.
    lines = status.describe(list(components(Machine(layout, Programs({}, {}), local.recorded_address(layout)))), layout)
    print(status.table(lines))
    return 0 if all(line.well for line in lines) else 1


def kubeconfig(chosen: choice.Choice) -> str:
    """Return the path of the chosen cluster's kubeconfig.

    Raises:
        Refused: There is no cluster yet.
    """
    if chosen.kind == "context":
        return str(foreign.kubeconfig(chosen.context))
    path = kindcluster.kubeconfig() if chosen.kind == "kind" else Layout.of_machine().kubeconfig
    if not path.exists():
        raise Refused("There is no cluster yet: `make cluster-up` starts one.")
    return str(path)


def registry(chosen: choice.Choice) -> str:
    """Return the prefix of the chosen cluster's registry.

    Raises:
        Refused: There is no cluster yet, or no registry was named.
    """
    if chosen.kind == "context":
        return foreign.registry()
    if chosen.kind == "kind":
        return kindcluster.registry()
    address = local.recorded_address(Layout.of_machine())
    if not address:
        raise Refused("There is no cluster yet: `make cluster-up` starts one.")
    return local.registry_of(address)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="cluster", description="A real single-node Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in COMMANDS.items():
        commands.add_parser(name, help=sentence, description=sentence)
    command = parser.parse_args(arguments).command
    try:
        chosen = choice.choose()
        if command in {"kubeconfig", "registry"}:
            print(kubeconfig(chosen) if command == "kubeconfig" else registry(chosen))
            return 0
        if command == "up":
            return up(chosen)
        return show(chosen) if command == "status" else down(chosen, purge=command == "purge")
    except Refused as refused:
        say.line(f"✗ {refused}")
        return 1
    except KeyboardInterrupt:
        say.line("✗ Interrupted: `make cluster-up` goes on from here, `make cluster-down` takes everything away.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
