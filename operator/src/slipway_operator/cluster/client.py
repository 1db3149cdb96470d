"""The real cluster, by the official client's asyncio half and plain data."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient

from slipway_operator.cluster.errors import ExpiredError, GoneError, error_of
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, OWNED, Where, collection_path, object_path
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.digests import short_of
from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Event, Manifest, Ref, ref_of

TIMEOUT_SECONDS = 30
PAGE = 250
"""Objects in one answer: what is parsed at once is a matter of memory."""
PAGING_ATTEMPTS = 3
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
REPORTER = "slipway.dev/operator"

log = structlog.get_logger()


class _Request(NamedTuple):
    method: str
    path: str
    query: Sequence[tuple[str, str]]
    body: Manifest | str | None = None
    media: str = "application/json"


class KubernetesCluster:
    """One shared API client: one pool of connections for all workers."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.last_answer: float | None = None
        """Loop time of the last answer of the API server, of whatever kind."""
        self.requests: Counter[str] = Counter()
        """How many requests there were, by method; a watch is one."""

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, or None if there is none."""
        try:
            return await self.call("GET", object_path(ref))
        except NotFoundError:
            return None

    async def list(self, where: Where, *, selector: str = "", fields: str = "") -> Sequence[Manifest]:
        """All objects of a collection that match, page by page."""
        return (await self.list_at(where, selector=selector, fields=fields))[0]

    async def list_at(self, where: Where, *, selector: str = "", fields: str = "") -> tuple[Sequence[Manifest], str]:
        """As `list`, with the version of the cluster that the list shows."""
        for _ in range(PAGING_ATTEMPTS):
            found: Any = []
            version = ""
            with contextlib.suppress(ExpiredError):
                async for items, shown in self.pages(where, selector=selector, fields=fields):
                    found.extend(items)
                    version = shown
                return found, version
        raise Waiting("Expired", f"the list of {where.kind} changes faster than it can be read")

    async def pages(
        self, where: Where, *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[Sequence[Manifest], str]]:
        """The pages of a list, each with the version that the whole list shows.

        Raises:
            ExpiredError: reading took so long that the API server forgot where it was.
        """
        query = [("limit", str(PAGE))]
        query += [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        media = METADATA_ONLY if metadata_only else "application/json"
        token = ""
        while True:
            more = [("continue", token)] if token else []
            page = await self.call("GET", collection_path(where), query=[*query, *more], media=media)
            meta = page.get("metadata") or {}
            # Items of a list do not say what they are; planners want to know.
            items = page.get("items") or ()
            yield (
                [{**item, "apiVersion": where.api_version, "kind": where.kind} for item in items],
                str(meta.get("resourceVersion") or "0"),
            )
            token = meta.get("continue") or ""
            if not token:
                return

    async def watch(
        self, where: Where, *, selector: str, version: str, seconds: float, silence: float
    ) -> AsyncIterator[bytes]:
        """Events of a collection after a version, as lines of JSON; an empty one says that the watch is accepted.

        Args:
            where: Collection.
            selector: Labels.
            version: Version to start from.
            seconds: The API server ends the watch after so long.
            silence: Without a byte for so long the watch counts as dead.

        Raises:
            ExpiredError: the version is too old.
        """
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", selector),
            ("resourceVersion", version),
            ("timeoutSeconds", str(round(seconds))),
        ]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=silence)
        with _waiting():
            response = await self._send(_Request("GET", collection_path(where), query), timeout)
            stream: aiohttp.ClientResponse = response.response
            try:
                if not 200 <= stream.status <= 299:
                    _raise(stream.status, await stream.read(), stream.headers.get("Retry-After"))
                yield b""
                rest = b""
                async for chunk in stream.content.iter_any():
                    self.last_answer = asyncio.get_running_loop().time()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
            finally:
                stream.close()

    async def list_owned(self, namespace: str, owner: str, *, anew: bool = False) -> Sequence[Manifest]:
        """Everything that carries the owner's label, all kinds at once; always as it is now."""
        del anew
        selector = f"{labels.OWNER}={owner}"
        lists = await asyncio.gather(
            *(self.list(Where(api, kind, namespace), selector=selector) for api, kind in OWNED)
        )
        return [item for items in lists for item in items]

    async def is_newest(self, key: Key, entries: Sequence[Manifest]) -> bool:
        """What was read is as new as it gets."""
        del key, entries
        return True

    def is_certain(self, key: Key) -> bool:
        """Nothing is remembered here."""
        del key
        return True

    def tell(self, key: Key, *, waits: bool) -> None:
        """Nothing is remembered here."""

    def doubt(self, key: Key) -> None:
        """Nothing is remembered here."""

    async def list_everywhere(self) -> Sequence[Manifest]:
        """ModelDeployments, log entries and builds of all namespaces.

        What a build has made is in the answer of its pod alone, until the content is live.
        """
        lists = await asyncio.gather(
            self.list(Where(*MODEL_DEPLOYMENT, "")),
            self.list(Where("apps/v1", "ControllerRevision", ""), selector=f"{labels.LOG}=true"),
            self.list(Where("batch/v1", "Job", ""), selector=f"{labels.STEP}=build"),
            self.list(Where("v1", "Pod", ""), selector=f"{labels.STEP}=build"),
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
            "PATCH", object_path(ref_of(manifest)), query=query, body=manifest, media="application/apply-patch+yaml"
        )
        log.info("applied", object=f"{manifest['kind']}/{manifest['metadata']['name']}")
        return answer

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object. None: one of that name exists already."""
        ref = ref_of(manifest)
        path = collection_path(Where(ref.api_version, ref.kind, ref.namespace))
        query = [("fieldManager", labels.FIELD_MANAGER)]
        try:
            if ref.kind == "ControllerRevision":
                # Its data is compared byte for byte at each later write, also of metadata alone. From YAML the API
                # server makes the JSON that it would make itself: order, spaces and escapes are then its own.
                made = await self.call("POST", path, query=query, body=json.dumps(manifest), media="application/yaml")
            else:
                made = await self.call("POST", path, query=query, body=manifest)
        except AlreadyExistsError:
            return None
        log.info("created", object=f"{ref.kind}/{ref.name}")
        return made

    async def delete(self, ref: Ref, uid: str | None = None) -> Manifest | None:
        """Delete an object; what it owns goes in the background.

        Args:
            ref: Which one.
            uid: Only the object with this UID, not one that took its place.

        Returns:
            The object as it is while finalizers keep it, else None.
        """
        body: Manifest = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            left = await self.call("DELETE", object_path(ref), body=body)
        except NotFoundError:
            return None
        log.info("deleted", object=f"{ref.kind}/{ref.name}")
        return left if left.get("kind") == ref.kind and left["metadata"].get("finalizers") else None

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> str:
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
        answer = await self.call("PATCH", path, query=query, body=body, media="application/apply-patch+yaml")
        return str(answer["metadata"]["resourceVersion"])

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
        body: Manifest | str | None = None,
        media: str = "application/json",
    ) -> Manifest:
        """One request; answers as plain data, errors in our words.

        Args:
            method: As in HTTP.
            path: Of the URL.
            query: Of the URL.
            body: What is sent.
            media: Media type of what is sent, or, where nothing is, of what is asked for.
        """
        with _waiting():
            response = await self._send(_Request(method, path, query, body, media), TIMEOUT_SECONDS)
            text: bytes = await response.read()
        self.last_answer = asyncio.get_running_loop().time()
        if 200 <= response.status <= 299:
            return json.loads(text) if text else {}
        _raise(response.status, text, response.headers.get("Retry-After"))
        raise AssertionError  # pragma: no cover - _raise always raises

    async def _send(self, request: _Request, seconds: float | aiohttp.ClientTimeout) -> Any:
        headers = {"Accept": "application/json"}
        headers["Accept" if request.body is None else "Content-Type"] = request.media
        self.requests[request.method] += 1
        serialized = await self._api.param_serialize(
            method=request.method,
            resource_path=request.path,
            query_params=list(request.query),
            header_params=headers,
            body=request.body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*serialized, _request_timeout=seconds)


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """A server that does not answer is waited for."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = str(error) or type(error).__name__
        raise Waiting("ApiServerUnavailable", f"the API server does not answer: {said}") from error


class NotFoundError(Exception):
    """404: there is no such object."""


class AlreadyExistsError(Exception):
    """409 at a creation."""


def _raise(status: int, text: bytes, retry_after: str | None = None) -> None:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    reason, message = answer.get("reason", ""), answer.get("message") or text.decode(errors="replace")[:300]
    if status == 404:
        raise NotFoundError(message)
    if status == 410:
        raise ExpiredError("Expired", message)
    if status == 409 and reason == "AlreadyExists":
        raise AlreadyExistsError(message)
    if status == 409:
        raise ConflictError(message)
    error = error_of(status, message, answer)
    if isinstance(error, Waiting) and status in {429, 503} and (retry_after or "").isdigit():
        error.retry_after = float(retry_after or 0)
    raise error
