"""The local cluster's command line: `python3 -m cluster up | status | down | purge | kubeconfig | registry`."""

from __future__ import annotations

import sys

from cluster import local
from cluster.layout import Layout
from tools import say
from tools.refusal import Refused


def main() -> int:
    layout = Layout.of_machine()
    try:
        if sys.argv[1] == "up":
            local.up(layout)
        elif sys.argv[1] in ("down", "purge"):
            local.down(layout, purge=sys.argv[1] == "purge")
        elif sys.argv[1] == "kubeconfig":
            print(layout.kubeconfig)
    except Refused as refused:
        say.line(f"✗ {refused}")
        return 1
    return 0


sys.exit(main())
