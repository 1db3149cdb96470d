"""The tools that development needs, each at one pinned version, built or installed once into a cache.

`python3 -m tools ensure helm crane` (with ``hack`` on ``PYTHONPATH``) makes them available and prints their paths.
Standard library only, Python 3.11: it must run on a machine where nothing else is installed yet.
The neighbour `cluster` builds its components with this room; nothing here knows of a cluster.
"""
