"""The real cluster, by the official client's asyncio half and plain data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient

from slipway_operator.cluster.errors import GoneError, error_of
from slipway_operator.cluster.kinds import OWNED, Where, collection_path, object_path
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.digests import short_of
from slipway_operator.domain.errors import Waiting
from slipway_operator.plan.observed import Event, Manifest, Ref, ref_of

TIMEOUT_SECONDS = 30
PAGE = 500
REPORTER = "slipway.dev/operator"

log = structlog.get_logger()


class KubernetesCluster:
    """One shared API client: one pool of connections for all workers."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.last_answer: float | None = None
        """Loop time of the last answer of the API server, of whatever kind."""

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, or None if there is none."""
        try:
            return await self.call("GET", object_path(ref))
        except NotFoundError:
            return None

    async def list(self, where: Where, *, selector: str = "", fields: str = "") -> list[Manifest]:
        """All objects of a collection that match, page by page."""
        found: list[Manifest] = []
        query = [("limit", str(PAGE))]
        query += [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        token = ""
        while True:
            page = await self.call(
                "GET", collection_path(where), query=[*query, *([("continue", token)] if token else [])]
            )
            # Items of a list do not say what they are; planners want to know.
            items = page.get("items") or ()
            found.extend({**item, "apiVersion": where.api_version, "kind": where.kind} for item in items)
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    async def list_owned(self, namespace: str, owner: str) -> Sequence[Manifest]:
        """Everything that carries the owner's label, all kinds at once."""
        selector = f"{labels.OWNER}={owner}"
        lists = await asyncio.gather(
            *(self.list(Where(api, kind, namespace), selector=selector) for api, kind in OWNED)
        )
        return [item for items in lists for item in items]

    async def list_events(self, namespace: str, uids: Sequence[str]) -> Sequence[Manifest]:
        """Warnings about the objects of these UIDs; the newest few objects are enough to say what is wrong."""
        lists = await asyncio.gather(
            *(
                self.list(Where("v1", "Event", namespace), fields=f"involvedObject.uid={uid},type=Warning")
                for uid in uids[:5]
            )
        )
        return [item for items in lists for item in items]

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply; conflicts with other managers are forced, those of versions raised."""
        query = [("fieldManager", labels.FIELD_MANAGER), ("force", "true")]
        answer = await self.call(
            "PATCH", object_path(ref_of(manifest)), query=query, body=manifest, content="application/apply-patch+yaml"
        )
        log.info("applied", object=f"{manifest['kind']}/{manifest['metadata']['name']}")
        return answer

    async def create(self, manifest: Manifest) -> bool:
        """Create an object. False: one of that name exists already."""
        ref = ref_of(manifest)
        path = collection_path(Where(ref.api_version, ref.kind, ref.namespace))
        try:
            await self.call("POST", path, query=[("fieldManager", labels.FIELD_MANAGER)], body=manifest)
        except AlreadyExistsError:
            return False
        log.info("created", object=f"{ref.kind}/{ref.name}")
        return True

    async def delete(self, ref: Ref) -> None:
        """Delete an object; what it owns goes in the background."""
        try:
            await self.call("DELETE", object_path(ref), body={"propagationPolicy": "Background"})
        except NotFoundError:
            return
        log.info("deleted", object=f"{ref.kind}/{ref.name}")

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> None:
        """Replace the status of the object that was read, not of one that took its place or changed."""
        meta = resource["metadata"]
        body = {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "status": status,
        }
        query = [("fieldManager", labels.FIELD_MANAGER), ("force", "true")]
        path = object_path(ref_of(body)) + "/status"
        await self.call("PATCH", path, query=query, body=body, content="application/apply-patch+yaml")

    async def emit(self, resource: Mapping[str, Any], event: Event) -> None:
        """Record an event; a courtesy that fails quietly."""
        meta = resource["metadata"]
        now = datetime.now(UTC)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{short_of([event.reason, event.message, now.isoformat()])}",
                "namespace": meta["namespace"],
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event.type,
            "reason": event.reason,
            "note": event.message[:1000],
            "action": event.action,
            "reportingController": REPORTER,
            "reportingInstance": "slipway-operator",
            "regarding": {
                "apiVersion": resource["apiVersion"],
                "kind": resource["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
        }
        try:
            await self.call("POST", collection_path(Where("events.k8s.io/v1", "Event", meta["namespace"])), body=body)
        except GoneError:
            return
        except Exception as error:  # noqa: BLE001 - an event is never worth a failed reconcile
            log.warning("event not recorded", reason=event.reason, error=str(error))

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Manifest:
        """One request; answers as plain data, errors in our words."""
        headers = {"Accept": "application/json", "Content-Type": content}
        try:
            request = await self._api.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            text: bytes = await response.read()  # type: ignore[no-untyped-call]  # the client has no types
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Waiting("ApiServerUnavailable", f"the API server does not answer: {error}") from error
        self.last_answer = asyncio.get_running_loop().time()
        if 200 <= response.status <= 299:
            return json.loads(text) if text else {}
        _raise(response.status, text)
        raise AssertionError  # pragma: no cover - _raise always raises


class NotFoundError(Exception):
    """404 or 410: there is no such object."""


class AlreadyExistsError(Exception):
    """409 at a creation."""


def _raise(status: int, text: bytes) -> None:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    reason, message = answer.get("reason", ""), answer.get("message") or text.decode(errors="replace")[:300]
    if status in {404, 410}:
        raise NotFoundError(message)
    if status == 409 and reason == "AlreadyExists":
        raise AlreadyExistsError(message)
    if status == 409:
        raise ConflictError(message)
    raise error_of(status, message, answer)
