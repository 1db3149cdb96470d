"""The local cluster as pods see it: DNS, Services, the outside, image volumes, claims, metrics, the registry.

What would disturb others on the cluster (killing its parts, stopping it) is in `make cluster-selftest`.
"""

import json
import os
import re
import ssl
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cluster import local
from cluster.layout import DNS_SERVICE_IP, PORTS, Layout
from tools import __main__ as tools
from tools import debian

LAYOUT = Layout.of_machine()
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("SLIPWAY_CONTEXT")) or not LAYOUT.kubeconfig.exists(),
    reason="these look at this machine's own cluster, and another one is used",
)


GREETING = b"from the image\n"
GET = """
exec 3<>/dev/tcp/{host}/{port}
printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3
while IFS= read -r line <&3; do echo "$line"; done; echo "$line"
"""
"""A GET in nothing but bash: Debian's static busybox cannot resolve any host, as its C library wants modules."""


class Kubectl:
    """kubectl in one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.base = [str(tools.ensure("kubectl")), "--kubeconfig", str(LAYOUT.kubeconfig)]

    def run(self, *arguments: str, given: object = None, check: bool = True) -> str:
        done = subprocess.run(
            [*self.base, "--namespace", self.namespace, *arguments],
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def ready(self, pod: str) -> None:
        waited = self.run("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s", check=False)
        assert "condition met" in waited, self.run("describe", "pod", pod)


def libraries(program: Path) -> list[str]:
    """The shared libraries of a program, and the loader."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+)", said)))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small image with two shells and a file, in the cluster's registry."""
    programs = debian.ensure(["busybox", "bash"])
    layer = tmp_path_factory.mktemp("image") / "layer.tar"
    files = {"bin/busybox": programs["busybox"], "bin/bash": programs["bash"]}
    files |= {path.lstrip("/"): Path(path) for path in libraries(programs["bash"])}
    with tarfile.open(layer, "w", dereference=True) as tar:
        for name, path in files.items():
            tar.add(path.resolve(), name)
        entry = tarfile.TarInfo("greeting.txt")
        entry.size, entry.mode = len(GREETING), 0o644
        tar.addfile(entry, BytesIO(GREETING))
    reference = f"{local.registry_of(local.recorded_address(LAYOUT))}/selftest/busybox:{uuid.uuid4().hex[:8]}"
    crane = str(tools.ensure("crane"))
    pushed = subprocess.run(
        [crane, "append", "--insecure", "-f", str(layer), "-t", reference], capture_output=True, text=True, check=True
    ).stdout.strip()
    yield pushed
    subprocess.run([crane, "delete", "--insecure", pushed], capture_output=True, check=True)


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """A namespace that takes only restricted pods."""
    made = Kubectl(f"dev-local-{uuid.uuid4().hex[:6]}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace, "labels": labels}})
    yield made
    made.run("delete", "namespace", made.namespace, "--wait=false")


def pod(name: str, image: str, script: str, volumes: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """A restricted pod that runs a script of busybox's shell."""
    given = volumes or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": ["/bin/busybox", "sh", "-c", script],
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in given],
                }
            ],
            "volumes": [{"name": each, **source} for each, source in given.items()],
        },
    }


@pytest.fixture(scope="module")
def client(kubectl: Kubectl, image: str) -> Callable[[str], str]:
    """A pod to look around from, with an image and a claim mounted, beside a server behind a Service."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    volumes: dict[str, dict[str, Any]] = {
        "mounted": {"image": {"reference": image, "pullPolicy": "IfNotPresent"}},
        "data": {"persistentVolumeClaim": {"claimName": "data"}},
        "www": {"emptyDir": {}},
    }
    serve = "echo served > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www"
    kubectl.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        pod("server", image, serve, {"www": {"emptyDir": {}}}),
        pod("client", image, "exec /bin/busybox sleep 600", volumes),
    )
    kubectl.ready("server")
    kubectl.ready("client")
    return lambda script: kubectl.run("exec", "client", "--", "/bin/bash", "-c", script)


def poll(held: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.3)


def test_a_pod_finds_a_service_by_name_and_reaches_it(client, kubectl):
    address = kubectl.run("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    name = f"web.{kubectl.namespace}.svc.cluster.local"

    assert address in client(f"/bin/busybox nslookup {name}")
    # The node routes to a pod up to a second after it is ready.
    ask = GET.format(host=name, port=80, path="/")
    poll(lambda: client(f"({ask}) 2>&1 || true").rstrip().endswith("served"), "an answer of the Service")


def test_a_pod_asks_the_dns_service(client):
    assert f"nameserver {DNS_SERVICE_IP}" in client("while read line; do echo $line; done < /etc/resolv.conf")


def test_a_pod_reaches_the_registry_by_the_name_that_the_node_uses(client):
    registry = local.registry_of(local.recorded_address(LAYOUT))

    host, _, port = registry.partition(":")
    assert client(GET.format(host=host, port=port, path="/v2/")).rstrip().endswith("{}")


def test_a_pod_reaches_the_outside_under_the_nodes_address(client):
    """The machine's name server is outside the pod network: an answer of any kind shows the way there and back."""
    server = re.search(r"^nameserver (\d+\.\d+\.\d+\.\d+)$", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    if server is None or server[1].startswith("127."):
        pytest.skip("this machine's name server is on loopback or speaks IPv6 only")

    def answered() -> bool:
        said = client(f"/bin/busybox nslookup example.com {server[1]} 2>&1 || true")
        return server[1] in said and "timed out" not in said

    poll(answered, "an answer from the outside")  # a datagram may be lost


def test_an_image_is_mounted_read_only(client):
    assert client("while read line; do echo $line; done < /mounted/greeting.txt") == "from the image\n"
    assert "Read-only" in client(
        "echo x > /mounted/greeting.txt 2>&1 || /bin/busybox touch /mounted/greeting.txt 2>&1 || true"
    )


def test_a_claim_is_bound_and_written_as_another_user(client, kubectl):
    client("echo kept > /data/file")
    volume = kubectl.run("get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}")

    assert kubectl.run("get", "pvc", "data", "-o", "jsonpath={.status.phase}") == "Bound"
    assert (LAYOUT.volumes / volume / "file").read_text() == "kept\n"


def test_a_deleted_claim_takes_its_folder_with_it(kubectl, image):
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "short"}, "spec": claim},
        pod("short", image, "echo x > /data/file", {"data": {"persistentVolumeClaim": {"claimName": "short"}}}),
    )
    poll(
        lambda: kubectl.run("get", "pvc", "short", "-o", "jsonpath={.status.phase}") == "Bound", "the claim to be bound"
    )
    folder = LAYOUT.volumes / kubectl.run("get", "pvc", "short", "-o", "jsonpath={.spec.volumeName}")
    assert folder.is_dir()

    kubectl.run("delete", "pod/short", "pvc/short", "--wait=false")

    poll(lambda: not folder.exists(), f"{folder} to be deleted")


def test_the_metrics_api_answers_for_pods(client, kubectl):
    client("true")
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{kubectl.namespace}/pods/client"
    poll(lambda: '"usage"' in kubectl.run("get", "--raw", path, check=False), "the pod's metrics", seconds=90)


def test_admission_policies_are_served_in_their_stable_versions(kubectl):
    served = kubectl.run("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name").split()

    assert {
        f"{name}.admissionregistration.k8s.io" for name in ("validatingadmissionpolicies", "mutatingadmissionpolicies")
    } <= set(served)


def test_logs_of_a_pod_can_be_read(kubectl, image):
    kubectl.apply(pod("talker", image, "echo said; exec /bin/busybox sleep 600"))
    kubectl.ready("talker")

    poll(lambda: kubectl.run("logs", "talker") == "said\n", "the log")


def test_a_pod_that_is_not_restricted_is_refused_here(kubectl, image):
    free = pod("free", image, "exit 0")
    del free["spec"]["securityContext"]

    refused = subprocess.run(
        [*kubectl.base, "-n", kubectl.namespace, "apply", "-f", "-"],
        input=json.dumps(free),
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_nobody_without_a_certificate_reads_anything():
    context = ssl.create_default_context(cafile=str(LAYOUT.pki / "ca.crt"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"https://{local.recorded_address(LAYOUT)}:{PORTS.apiserver}/api/v1/secrets", timeout=10)

    refused.value.close()
    assert refused.value.code in {401, 403}


def test_keys_and_kubeconfigs_are_for_root_only():
    secret = [LAYOUT.kubeconfig, *LAYOUT.pki.glob("*.key"), *LAYOUT.etc.glob("*.kubeconfig")]

    assert len(secret) > 10
    assert {str(path): oct(path.stat().st_mode & 0o077) for path in secret} == {str(path): "0o0" for path in secret}


def test_starting_again_changes_nothing():
    def pids() -> dict[str, str]:
        return {path.name: path.read_text() for path in (LAYOUT.run).glob("*.json")}

    before, started = pids(), time.monotonic()

    done = subprocess.run(
        ["python3", "-m", "cluster", "up"],
        cwd=Path(__file__).parents[2] / "hack",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert pids() == before
    assert time.monotonic() - started < 20
