"""A real single-node Kubernetes on a bare Linux machine: `python3 -m cluster up|status|down|kubeconfig|registry`.

Every component is a plain process of this machine, with its state below one folder. Standard library only,
as it runs before anything is installed. The neighbour `tools` builds the programs; nothing else is needed.
"""
