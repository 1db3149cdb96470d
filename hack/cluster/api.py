"""Asks the cluster's parts whether they are well: a few lines of HTTPS, checked against the cluster's authority."""

from __future__ import annotations

import functools
import json
import ssl
import urllib.request
from typing import Any

from cluster.layout import PORTS, Layout


@functools.lru_cache(maxsize=4)
def _context(authority: str, certificate: str, key: str, changed: float) -> ssl.SSLContext:  # noqa: ARG001 - keys the cache
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    return context


def _admin(layout: Layout) -> ssl.SSLContext:
    certificate = layout.pki / "admin.crt"
    return _context(
        str(layout.pki / "ca.crt"), str(certificate), str(layout.pki / "admin.key"), certificate.stat().st_mtime
    )


def answers(layout: Layout, url: str) -> bool:
    """Tell whether a health URL answers 200."""
    try:
        # Controllers show health to anybody, under certificates that they made for themselves.
        if url.startswith("https") and f":{PORTS.apiserver}/" not in url:
            context = ssl._create_unverified_context()  # noqa: S323, SLF001 - loopback, and nothing is sent
        else:
            context = _admin(layout)
        opener = _opener(context)
        with opener.open(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def get(layout: Layout, path: str) -> dict[str, Any] | None:
    """Return an object of the API, or None where it is not there or nobody answers."""
    try:
        opener = _opener(_admin(layout))
        with opener.open(f"https://127.0.0.1:{PORTS.apiserver}{path}", timeout=5) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    # No proxy: a company's proxy knows nothing of this machine's own addresses.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def is_true(found: dict[str, Any] | None, condition: str) -> bool:
    """Tell whether an object has a condition with status True."""
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)
