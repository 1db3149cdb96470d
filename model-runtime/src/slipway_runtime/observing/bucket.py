"""A sink in an object store that speaks S3: each piece is an object of its own.

Requests are signed, sent and asked again by obstore, a binding of Rust's object_store. Nothing is ever
read or deleted here: how long records stay is for the bucket's own rules to say.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from slipway_runtime.observing.sinks import MEDIA_TYPE

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_PLACE = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[^?#]*))?")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_OF_CREDENTIALS = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"),
        "XAdminUserNotFound",  # Versity's word for a key that it does not know
    }
)
_SIGNS = {
    "InvalidCertificate": "its certificate is not trusted; --record-ca names the authority that signed it",
    "InvalidContentType": "it does not speak TLS; is http:// meant?",
    "dns error": "its host name is not known",
    "Connection refused": "nobody listens there",
    "TimedOut": "it did not answer in time",
    "Timeout": "it did not answer in time",
}
"""What the library's account of a failed request holds, and what it means."""
_FILES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_READ_AGAIN = timedelta(minutes=10)
"""How long keys are used that were read from files: obstore asks anew five minutes before they end."""
_PATIENCE = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """What is not as AWS has it, or as its usual environment variables (``AWS_…``) say."""

    endpoint: str | None = None
    region: str | None = None
    credentials: Path | None = None
    """A folder with a file for each key, as a mounted Secret has them."""
    ca: Path | None = None
    """Authorities in PEM that are trusted beside the system's."""


class Bucket:
    """Writes pieces into a bucket."""

    def __init__(self, place: str, *, model: str, who: str, options: BucketOptions) -> None:
        """Prepare; the store is not asked yet.

        Args:
            place: ``s3://bucket/prefix``.
            model: Part of every object's key, so that several can share a prefix.
            who: As well, so that pods can.
            options: How the store is reached.

        Raises:
            ValueError: If the place or an option cannot be.
        """
        found = _PLACE.fullmatch(place)
        if found is None:
            raise ValueError(f"{place} is no bucket; write s3://<bucket>/<prefix>")
        self._bucket = found["bucket"]
        self._model = model
        self._who = who
        self._number = 0
        config: S3Config = {}
        client: ClientConfig = {"timeout": "10s", "connect_timeout": "3s"}
        self._where = f"bucket {self._bucket}"
        endpoint = options.endpoint or next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
        if endpoint is not None:
            if not re.fullmatch(r"https?://[^/?#@]+(/[^?#@]*)?", endpoint):
                raise ValueError("the bucket's endpoint is none; write https://<host>[:<port>]")
            config["endpoint"] = endpoint
            client["allow_http"] = endpoint.startswith("http://")
            self._where += f" of {endpoint}"
        if options.region is not None:
            config["region"] = options.region
        if options.ca is not None:
            client["root_certificate"] = _read(options.ca)
        self._keys = options.credentials
        if self._keys is not None:
            self._from_files()
        try:
            self._store = S3Store(
                self._bucket,
                prefix=(found["prefix"] or "").strip("/") or None,
                config=config,
                client_options=client,
                retry_config={"max_retries": 2, "retry_timeout": _PATIENCE},
                credential_provider=None if self._keys is None else self._from_files,
            )
        except BaseError as error:
            raise ValueError(f"{self._where} cannot be used: {_first_line(error)}") from None

    def write(self, kind: str, piece: bytes) -> None:
        """As `Sink`."""
        self._number += 1
        now = time.gmtime()
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', now)}-{self._who}-{self._number:06}.arrows"
        key = f"{self._model}/{kind}/{time.strftime('%Y-%m-%d', now)}/{name}"
        try:
            obstore.put(self._store, key, piece, attributes={"Content-Type": MEDIA_TYPE}, use_multipart=False)
        except (BaseError, OSError) as error:
            self._explain(error)

    def _explain(self, error: Exception) -> NoReturn:
        """Say in a line what is wrong, without what the store echoes of the request: a key may be in it.

        Raises:
            OSError: Always.
        """
        said = str(error)
        found = _CODE.search(said)
        code = found[1] if found is not None else ""
        known = f" ({code})" if code else ""
        if code in _OF_CREDENTIALS or (not code and isinstance(error, UnauthenticatedError)):
            reason = f"{self._where} does not take the credentials{known}; look at the Secret with {_FILES[0]}"
        elif code == "NoSuchBucket" or isinstance(error, FileNotFoundError):
            reason = f"there is no {self._where}{known}"
        elif isinstance(error, PermissionDeniedError):
            reason = f"{self._where} does not let these credentials write{known}; they need s3:PutObject"
        else:
            signs = [meaning for sign, meaning in _SIGNS.items() if sign in said]
            reason = f"{self._where} took nothing{known}: {signs[0] if signs else _first_line(error)}"
        raise OSError(reason) from None

    def _from_files(self) -> S3Credential:
        """Read the keys; again from time to time, as a Secret may change.

        Raises:
            ValueError: If they are not there.
        """
        folder = self._keys or Path()
        first, second, token = (_text(folder / name) for name in _FILES)
        if not first or not second:
            raise ValueError(f"{folder} must hold the files {_FILES[0]} and {_FILES[1]}, as a mounted Secret does")
        return {
            "access_key_id": first,
            "secret_access_key": second,
            "token": token or None,
            "expires_at": datetime.now(UTC) + _READ_AGAIN,
        }


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.rpartition(" - ")[2].partition("<")[0].strip()[:200]
