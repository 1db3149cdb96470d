"""Open Inference Protocol v2: signatures, requests, answers, and how they are written down.

Free of any web framework and of any engine: bytes and NumPy arrays in, bytes and NumPy
arrays out. https://github.com/kserve/open-inference-protocol is the source of the format.
"""
