"""The command ``slipway``: what a data scientist does on a laptop.

Small on purpose: it shares the packaging room with the builder, and needs neither kopf nor
a Kubernetes client. The commands that act on a cluster join it as ``kubectl slipway``.
"""
