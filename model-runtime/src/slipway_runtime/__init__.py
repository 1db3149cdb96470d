"""Slipway's model runtime: one model in memory, answers over the Open Inference Protocol.

Rooms, from the inside out: `protocol` (types and codecs), `engines` (what computes),
`dataplane` (what runs together), `http` (the wire), `server` (life in a pod). An inner
room knows nothing of an outer one, and none of them knows the operator.
"""

__version__ = "0.1.0"
