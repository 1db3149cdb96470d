"""Make pinned tools available: `python3 -m tools ensure NAME…`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools import catalogue, debian, gobuild, say, uv
from tools.refusal import Refused


def ensure(name: str) -> Path:
    """Make one program available and return its path.

    Raises:
        Refused: It is unknown, or cannot be had on this machine.
    """
    if name == "uv":
        return uv.ensure() / "uv"
    if name in catalogue.DEBIAN:
        return debian.ensure([name])[name]
    try:
        tool = catalogue.provider(name)
    except KeyError:
        known = ", ".join([*catalogue.program_names(), *catalogue.DEBIAN])
        raise Refused(f"There is no tool {name!r}; there are: {known}.") from None
    return gobuild.ensure(tool) / name


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="tools", description="Pinned development tools, built once into a cache.")
    commands = parser.add_subparsers(dest="command", required=True)
    wanted = commands.add_parser("ensure", help="make tools available and print the path of each, one a line")
    wanted.add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("list", help="print every tool with its version")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "list":
            for tool in catalogue.GO_TOOLS.values():
                print(f"{tool.name:<16}{tool.version:<10}{' '.join([*tool.programs, *tool.links])}")
        else:
            for name in asked.names:
                print(ensure(name), flush=True)
    except Refused as refused:
        say.line(f"✗ {refused}")
        return 1
    except KeyboardInterrupt:
        say.line("✗ Interrupted; the same command goes on where it stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
