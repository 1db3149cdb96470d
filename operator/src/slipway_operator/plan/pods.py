"""What every pod of Slipway has in common: no rights, no token, no way to more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slipway_operator.domain.requests import SECRETS
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest

USER = 65532
"""The images' unprivileged user."""
_KEYS = {
    "registry": {".dockerconfigjson": "config.json"},
    "tls": {"tls.crt": "tls.crt", "tls.key": "tls.key"},
    "client-ca": {"ca.crt": "ca.crt"},
    "api-keys": {"keys": "keys"},
    "bucket": {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
}
"""Which keys of a Secret are mounted, and as which files, by its use; all of them where nothing is said."""


def pod_security() -> Manifest:
    """Pod-level half of Pod Security ``restricted``."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(*, read_only: bool = True) -> Manifest:
    """Container-level half; ``read_only`` only where the code in it writes beside its volumes."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": read_only,
    }


def pod_spec(settings: Settings, **fields: object) -> Manifest:
    """A pod's spec: the shared part and the given fields."""
    pull = settings.registry.secret_name
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **({"imagePullSecrets": [{"name": pull}]} if pull else {}),
        **fields,
    }


def scratch(name: str, limit: str) -> Manifest:
    """An emptyDir that ends its pod instead of filling the node's disk."""
    return {"name": name, "emptyDir": {"sizeLimit": limit}}


def mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    """Mounts a volume into a container."""
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def secret_volumes(secrets: Mapping[str, str | None]) -> list[Manifest]:
    """Volumes of the Secrets that are named, by their use, such as ``source`` or ``registry``."""
    volumes = []
    for use, name in secrets.items():
        if name is None:
            continue
        source: Manifest = {"secretName": name, "defaultMode": 0o440}
        if use in _KEYS:
            source["items"] = [{"key": key, "path": path} for key, path in _KEYS[use].items()]
        volumes.append({"name": f"secret-{use}", "secret": source})
    return volumes


def secret_mounts(secrets: Mapping[str, str | None], uses: Sequence[str]) -> list[Manifest]:
    """Mounts of the Secrets that one container may see."""
    return [mount(f"secret-{use}", f"{SECRETS}/{use}", read_only=True) for use in uses if secrets.get(use) is not None]
