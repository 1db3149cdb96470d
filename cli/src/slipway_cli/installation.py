"""The operator in a cluster: where it runs, and the settings of the platform as far as this person may read them."""

from __future__ import annotations

from typing import Any

from slipway_cli.session import ApiError, Manifest, Session

OPERATOR = "app.kubernetes.io/name=slipway,app.kubernetes.io/component=operator"
USUAL_NAMESPACE = "slipway-system"


def operators(session: Session) -> list[Manifest]:
    """Deployments of operators; with rights on the usual namespace alone, those of it.

    Raises:
        ApiError: Neither may be listed.
    """
    kind = "apps/v1/deployments"
    try:
        return session.list(session.path(kind, everywhere=True), selector=OPERATOR)
    except ApiError as error:
        if error.status != 403:
            raise
    return session.list(session.path(kind, namespace=USUAL_NAMESPACE), selector=OPERATOR)


def settings(session: Session) -> dict[str, Any] | None:
    """The operator's settings, or None where there is none or this person may not read them."""
    import yaml

    try:
        for operator in operators(session):
            for volume in operator["spec"]["template"]["spec"].get("volumes") or ():
                name = (volume.get("configMap") or {}).get("name")
                if volume.get("name") != "settings" or not name:
                    continue
                found = session.get(session.path("v1/configmaps", name, namespace=operator["metadata"]["namespace"]))
                parsed = yaml.safe_load((found.get("data") or {}).get("settings.yaml") or "")
                return parsed if isinstance(parsed, dict) else None
    except (ApiError, yaml.YAMLError):
        return None
    return None
