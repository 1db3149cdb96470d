"""How a URL names a host: one pattern for whatever the spec may point to."""

from __future__ import annotations

from typing import Final

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_GROUP = "[0-9A-Fa-f]{1,4}"
# What stands in brackets and is no address makes readers of URLs fail.
_IPV6 = "|".join(
    (
        f"({_GROUP}:){{7}}{_GROUP}",
        f"({_GROUP}:){{1,7}}:",
        *(f"({_GROUP}:){{1,{7 - after}}}(:{_GROUP}){{1,{after}}}" for after in range(1, 7)),
        f":((:{_GROUP}){{1,7}}|:)",
    )
)

HOST: Final = rf"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[({_IPV6})\])(:{_PORT})?"
"""A name or an IPv4 address, or an IPv6 address in brackets; with a port from 1 to 65535, if with any."""
