"""Keys that a caller must show one of: ``Authorization: Bearer <key>`` or ``X-Api-Key: <key>``.

A file holds one key a line; ``#`` begins a comment. Only digests are kept, and a shown key is
compared with all of them in constant time.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from slipway_runtime.errors import CannotServe
from slipway_runtime.security.files import Watched

_log = logging.getLogger(__name__)

_KEY = re.compile(rb"[\x21-\x7e]{16,512}")
_BYTES = 1 << 20
_KEYS = 1000


class ApiKeys:
    """The keys of one file."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            CannotServe: If it cannot be read, or holds no key or a weak one.
        """
        self._path = path
        self._file = Watched([path])
        self._digests = _digests(path)

    def allow(self, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether a request shows one of them."""
        shown = headers.get(b"x-api-key")
        if shown is None:
            scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return False
        digest = sha256(shown.strip()).digest()
        found = False
        for one in self._digests:
            found |= hmac.compare_digest(one, digest)
        return found

    def reload(self) -> None:
        """Read the file again if it has changed; one that cannot be read leaves the keys as they are."""
        if not self._file.changed():
            return
        try:
            self._digests = _digests(self._path)
        except CannotServe as error:
            _log.error("the keys stay as they were: %s", error.message)
        else:
            _log.info("read %d keys", len(self._digests))


def _digests(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES + 1)
    except OSError as error:
        raise CannotServe(f"{path} cannot be read: {error.strerror}") from None
    keys = [line.strip() for line in raw.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    if len(raw) > _BYTES or not 1 <= len(keys) <= _KEYS:
        raise CannotServe(f"{path} must hold 1 to {_KEYS} keys, one a line")
    for number, key in enumerate(keys, 1):
        if not _KEY.fullmatch(key):
            raise CannotServe(f"key {number} of {path} must be 16 to 512 visible characters of ASCII")
    return tuple(sha256(key).digest() for key in keys)
