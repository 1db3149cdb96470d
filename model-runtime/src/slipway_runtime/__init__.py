"""Slipway's model runtime: models in memory, answers over the Open Inference Protocol.

Rooms, from the inside out: `protocol` (types and codecs), `engines` (what computes),
`dataplane` (what runs together), `http` and `grpc` (the wire), `several` (more than one model),
`server` (life in a pod). An inner room knows nothing of an outer one, and none of them knows the operator.
"""

import os

__version__ = "0.1.0"

# Before NumPy is imported: the linear algebra that it brings would make a thread, with its memory, for each
# processor of the node, and nothing here ever asks it for anything.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
