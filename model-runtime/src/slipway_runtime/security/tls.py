"""TLS, and clients' certificates where they are asked for.

A changed file is a new context for new connections; open ones keep theirs until they are closed for
their age. One that cannot be read, or a key that does not fit, leaves the old ones in use.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from slipway_runtime.errors import CannotServe
from slipway_runtime.security.files import Watched

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Mounted files in PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Who must have signed a client's certificate; None: clients need none."""

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


class Tls:
    """The present context of each protocol."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            CannotServe: If they cannot be read or do not belong together.
        """
        self._files = files
        self._watched = Watched(files.paths)
        self.http = context_of(files, "http/1.1")
        self.grpc = context_of(files, "h2")

    def reload(self) -> bool:
        """Read the files again if one has changed; whether there are new contexts."""
        if not self._watched.changed():
            return False
        try:
            self.http, self.grpc = context_of(self._files, "http/1.1"), context_of(self._files, "h2")
        except CannotServe as error:
            _log.error("the certificates stay as they were: %s", error.message)
            return False
        _log.info("read new certificates")
        return True


def context_of(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    """Make a context.

    Raises:
        CannotServe: As `Tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        names = ", ".join(map(str, files.paths))
        raise CannotServe(f"{names} are no certificate and its key that can be used: {error}") from None
    return context


def _no_password() -> str:
    # OpenSSL would ask on the terminal.
    raise ValueError("the key must not be encrypted")
