"""The only room that talks to Kubernetes: a Protocol, the real client, a fake for tests.

It gathers what planners look at and carries out what they decide; it decides nothing.
"""
