"""The Open Inference Protocol over gRPC: HTTP/2, calls and messages.

From the wire inwards: `frames`, `outgoing` (bytes), `headers` (HPACK), `incoming`, `connection`
(HTTP/2), `calls` (gRPC on a stream), `inference`, `health`, `reflection` (services), `codec` and
`messages` (protobuf). Nothing here but `limits` is imported before somebody connects: who speaks
HTTP alone pays for none of it.
"""
