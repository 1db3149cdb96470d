"""How this room and `cluster` say that they cannot go on."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """Something a person must change; the text is a sentence that says what is wrong and what to do."""
