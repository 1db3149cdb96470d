"""The command ``slipway``, for a person at a laptop.

It shares the packaging room with the builds in the cluster, so that both make the same
bytes; it needs no cluster, no kopf and no scikit-learn.
"""
