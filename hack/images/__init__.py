"""Slipway's own images, made from Debian packages and the lock file without a container engine."""
