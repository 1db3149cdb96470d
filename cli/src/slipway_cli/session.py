"""The cluster: plain JSON in and out by the official client, and its errors as sentences."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from slipway_cli.options import Where
from slipway_cli.problem import Problem

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Manifest = dict[str, Any]

FIELD_MANAGER = "slipway-cli"
"""Not ``kubectl…``: Flux takes over the fields of managers that are named so, and drops them."""

MODEL_DEPLOYMENTS = "slipway.dev/v1alpha1/modeldeployments"
_SELF = "authentication.k8s.io/v1"

_SECONDS = 30
_PAGE = 500
_WATCH_SECONDS = 240


class ApiError(Problem):
    """The API server said no.

    Args:
        status: HTTP status.
        message: Its words, or ours where we know better.
        conflicts: Fields of an apply that others manage: manager and path of each.
    """

    def __init__(self, status: int, message: str, conflicts: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.conflicts = tuple(conflicts)


class Unreachable(Problem):
    """The API server did not answer."""


def will_pass(problem: Problem) -> bool:
    """Whether whoever waits should go on waiting: a restart of the API server is no answer."""
    return isinstance(problem, Unreachable) or (
        isinstance(problem, ApiError) and (problem.status >= 500 or problem.status == 429)
    )


class Session:
    """A person's connection to one cluster, with the namespace that was asked for."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        self.seconds: float = _SECONDS
        """Bound of one call."""

    @classmethod
    def open(cls, where: Where) -> Session:
        """Connect as kubectl would.

        Raises:
            Problem: There is no kubeconfig, no such context, or its login does not work.
        """
        import urllib3
        import yaml
        from kubernetes import client, config

        # The kubeconfig says insecure-skip-tls-verify; saying so at each call helps nobody.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        configuration = client.Configuration()
        configuration.retries = False
        try:
            if where.kubeconfig is None and where.context is None and _is_inside():
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                return cls(client.ApiClient(configuration), where.namespace or _own_namespace())
            path = _kubeconfig(where.kubeconfig)
            contexts, current = _contexts(path)
            wanted = where.context or current
            chosen = next((c for c in contexts if c["name"] == wanted), None)
            if chosen is None:
                names = ", ".join(sorted(c["name"] for c in contexts)) or "none"
                said = f"no context {wanted!r}" if wanted else "no current context, so name one with --context"
                raise Problem(f"the kubeconfig has {said}: it has {names}")
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, context=chosen["name"], client_configuration=configuration, persist_config=False
            )
        except (config.ConfigException, yaml.YAMLError) as error:
            raise Problem(f"the kubeconfig cannot be used: {str(error).rstrip('.').splitlines()[0]}") from None
        namespace = where.namespace or chosen["context"].get("namespace") or "default"
        return cls(client.ApiClient(configuration), namespace)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._api.configuration.host)

    def path(self, kind: str, name: str = "", *, namespace: str | None = None, everywhere: bool = False) -> str:
        """URL path of a collection or an object.

        Args:
            kind: ``group/version/plural``, or ``v1/plural``.
            name: Of the object; empty for the collection.
            namespace: Instead of the session's; empty for kinds without one.
            everywhere: The collection of all namespaces.
        """
        *api, plural = kind.split("/")
        root = f"/api/{api[0]}" if len(api) == 1 else f"/apis/{api[0]}/{api[1]}"
        chosen = self.namespace if namespace is None else namespace
        inside = f"/namespaces/{quote(chosen, safe='')}" if chosen and not everywhere else ""
        return f"{root}{inside}/{plural}" + (f"/{quote(name, safe='')}" if name else "")

    def get(self, path: str) -> Manifest:
        """One object.

        Raises:
            ApiError: As every call here.
        """
        return self._json("GET", path)

    def find(self, path: str) -> Manifest | None:
        """One object, or None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def deployment(self, name: str) -> Manifest:
        """A ModelDeployment; where there is none, the error names those that are there."""
        try:
            return self.get(self.path(MODEL_DEPLOYMENTS, name))
        except ApiError as error:
            if error.status != 404:
                raise
        names = sorted(item["metadata"]["name"] for item in self.list(self.path(MODEL_DEPLOYMENTS)))
        there = f"there are {', '.join(names[:8])}" if names else "there is none at all; -n names another namespace"
        raise ApiError(404, f"there is no ModelDeployment {name!r} in the namespace {self.namespace!r}: {there}")

    def list(self, path: str, *, selector: str = "", fields: str = "") -> list[Manifest]:
        """All objects of a collection that match."""
        query = [("limit", str(_PAGE))]
        query += [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        found: list[Manifest] = []
        token = ""
        while True:
            page = self._json("GET", path, query=[*query, *([("continue", token)] if token else [])])
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    def merge(self, path: str, patch: Mapping[str, Any]) -> Manifest:
        """Change some fields (merge patch)."""
        content = "application/merge-patch+json"
        return self._json("PATCH", path, query=[("fieldManager", FIELD_MANAGER)], body=patch, content=content)

    def apply(self, path: str, manifest: Mapping[str, Any], *, force: bool = False) -> Manifest:
        """Server-side apply."""
        query = [("fieldManager", FIELD_MANAGER), ("force", str(force).lower())]
        return self._json("PATCH", path, query=query, body=manifest, content="application/apply-patch+yaml")

    def create(self, path: str, manifest: Mapping[str, Any]) -> Manifest:
        """Create an object (reviews of rights are such)."""
        return self._json("POST", path, body=manifest)

    def user(self) -> str:
        """Whose connection it is, in the API server's own words."""
        asked = {"apiVersion": _SELF, "kind": "SelfSubjectReview"}
        review = self.create(self.path(f"{_SELF}/selfsubjectreviews", namespace=""), asked)
        return str(review["status"]["userInfo"]["username"])

    def watch(self, path: str, *, selector: str = "", fields: str = "") -> Iterator[Manifest]:
        """Events of a collection from now on; ends by itself after some minutes."""
        query = [("watch", "true"), ("timeoutSeconds", str(_WATCH_SECONDS))]
        query += [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        for line in self._lines(path, query, seconds=(_SECONDS, _WATCH_SECONDS + 30)):
            event = json.loads(line)
            if event.get("type") == "ERROR":
                return
            yield event

    def log(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        options: Sequence[tuple[str, str]] = (),
        namespace: str | None = None,
    ) -> Iterator[str]:
        """Lines of a container's log.

        Args:
            pod: Its name.
            container: Its name.
            follow: Go on as it is written.
            options: More of the API's own, such as ``tailLines``.
            namespace: Instead of the session's.
        """
        query = [("container", container), *options, *([("follow", "true")] if follow else [])]
        path = f"{self.path('v1/pods', pod, namespace=namespace)}/log"
        yield from self._lines(path, query, seconds=(_SECONDS, None if follow else _SECONDS * 4))

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Manifest:
        response = self._send(method, path, query, body=body, content=content, seconds=self.seconds)
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = {}
        finally:
            response.release_conn()
        if response.status >= 400 or not isinstance(answer, dict):
            raise _refused(response.status, path, answer)
        return answer

    def _lines(
        self, path: str, query: Sequence[tuple[str, str]], *, seconds: tuple[float, float | None]
    ) -> Iterator[str]:
        from urllib3.exceptions import HTTPError

        response = self._send("GET", path, query, seconds=seconds)
        try:
            if response.status >= 400:
                raise _refused(response.status, path, _parsed(response.read()))
            rest = b""
            for chunk in response.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            if rest:
                yield rest.decode("utf-8", "replace")
        except HTTPError as error:
            raise Unreachable(f"the connection to {self.server} broke off ({type(error).__name__})") from None
        finally:
            response.close()

    def _send(  # noqa: PLR0913 - all that an HTTP call is made of
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        seconds: float | tuple[float, float | None],
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json, */*", "Content-Type": content}
        try:
            verb, url, sent, payload, _ = self._api.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self._api.call_api(verb, url, sent, payload, _request_timeout=seconds).response
        except ApiException as error:
            raise Problem(f"{self.server} cannot be reached: {error.reason}") from None
        except HTTPError as error:
            raise Unreachable(
                f"the cluster at {self.server} does not answer ({_cause(error)}): "
                "is it up, and is this the right context?"
            ) from None
        return response


def contexts(kubeconfig: str | None) -> list[str]:
    """Names of a kubeconfig's contexts.

    Raises:
        Problem: There is none.
    """
    from kubernetes import config

    try:
        found, _ = _contexts(_kubeconfig(kubeconfig))
    except config.ConfigException as error:
        raise Problem(f"the kubeconfig cannot be used: {error}") from None
    return [str(context["name"]) for context in found]


def _contexts(kubeconfig: str) -> tuple[list[Manifest], str | None]:
    """Contexts, and the name of the current one, if there is one.

    The client's own ``list_kube_config_contexts`` refuses a kubeconfig without it, whatever was asked for.
    """
    from kubernetes import config
    from kubernetes.config.kube_config import KubeConfigMerger

    merged = KubeConfigMerger(kubeconfig).config  # type: ignore[no-untyped-call]
    if merged is None:
        raise config.ConfigException("it is empty")
    return [context.value for context in merged["contexts"]], merged.safe_get("current-context") or None


def _kubeconfig(given: str | None) -> str:
    named = given or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")  # noqa: PTH111 - a list of paths
    if not any(os.path.exists(path) for path in named.split(os.pathsep) if path):  # noqa: PTH110 - as above
        raise Problem(f"there is no kubeconfig {named}: name one with --kubeconfig, or set KUBECONFIG")
    return named


def _is_inside() -> bool:
    """In a pod, as kubectl sees it: a service account and no kubeconfig."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and not (
        os.environ.get("KUBECONFIG") or os.path.exists(os.path.expanduser("~/.kube/config"))  # noqa: PTH110, PTH111
    )


def _own_namespace() -> str:
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:  # noqa: PTH123
        return file.read().strip()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return {}


def _refused(status: int, path: str, answer: Any) -> ApiError:
    said = str(answer.get("message") or "") if isinstance(answer, dict) else ""
    if status == 401:
        return ApiError(status, "the cluster does not know you (Unauthorized): log in again, or choose another context")
    if status == 403:
        return ApiError(status, f"{said or 'you may not do this'}: ask for the right, or choose another namespace")
    if status == 404 and "/apis/slipway.dev/" in path and not said.count("modeldeployments"):
        return ApiError(status, "this cluster has no Slipway: install the chart, or choose another context")
    return ApiError(status, said or f"the API server answered {status} to {path}", _conflicts(answer))


def _conflicts(answer: Any) -> list[tuple[str, str]]:
    """Who manages which field, by the causes of a refused apply: ``conflict with "name" using v1 at …``."""
    causes = ((answer.get("details") or {}).get("causes") or ()) if isinstance(answer, dict) else ()
    return [
        (str(cause.get("message")).partition('"')[2].partition('"')[0], str(cause.get("field")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]


def _cause(error: Exception) -> str:
    text = str(getattr(error, "reason", None) or error)
    return text.rpartition(": ")[2].strip("()'\" ")[:200] or type(error).__name__
