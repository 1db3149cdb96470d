"""Words that all rooms share: keys, labels, digests, conditions, revisions, errors.

Imports nothing but ``api``; every other room may import it.
"""
