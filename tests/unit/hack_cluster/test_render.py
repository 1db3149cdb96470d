import json
import tomllib
from pathlib import Path

import pytest

from cluster import addons, render
from cluster.cgroups import parse
from cluster.components import Machine, Programs, components
from cluster.kindcluster import config, metrics
from cluster.layout import DNS_SERVICE_IP, PAUSE_IMAGE, PORTS, Layout
from cluster.leftovers import mounts_below, pod_devices

LAYOUT = Layout(Path("/state"))
MACHINE = Machine(LAYOUT, Programs({}, {}), "192.0.2.2")


def test_containerd_reads_its_configuration():
    read = tomllib.loads(render.containerd(LAYOUT))

    assert read["plugins"]["io.containerd.cri.v1.images"]["pinned_images"] == {"sandbox": PAUSE_IMAGE}
    assert read["plugins"]["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is True
    assert read["state"] == "/state/run/containerd"


def test_containerd_speaks_plain_http_to_the_clusters_registry_only():
    assert tomllib.loads(render.registry_hosts("192.0.2.2:5000")) == {
        "server": "http://192.0.2.2:5000",
        "host": {"http://192.0.2.2:5000": {"capabilities": ["pull", "resolve", "push"]}},
    }


def test_pods_ask_the_dns_service_and_its_endpoints_are_where_coredns_listens():
    kubelet = json.loads(render.kubelet(LAYOUT, node_ip="192.0.2.2", resolv_conf="/etc/resolv.conf"))
    objects = addons.manifests("192.0.2.2", b"pem")["items"]
    service = next(each for each in objects if each["kind"] == "Service" and each["metadata"]["name"] == "kube-dns")
    endpoints = next(each for each in objects if each["metadata"]["name"] == "kube-dns-node")
    corefile = render.corefile(LAYOUT, node_ip="192.0.2.2", resolv_conf="/etc/resolv.conf")

    assert kubelet["clusterDNS"] == [service["spec"]["clusterIP"]] == [DNS_SERVICE_IP]
    assert {port["port"] for port in endpoints["ports"]} == {PORTS.dns}
    assert endpoints["endpoints"][0]["addresses"] == ["192.0.2.2"]
    assert f".:{PORTS.dns} {{\n  bind 192.0.2.2\n" in corefile


def test_the_registry_lets_images_be_deleted():
    assert json.loads(render.registry(LAYOUT, node_ip="192.0.2.2"))["storage"]["delete"] == {"enabled": True}


def test_the_kubelet_takes_nobody_without_a_certificate_or_token():
    kubelet = json.loads(render.kubelet(LAYOUT, node_ip="192.0.2.2", resolv_conf="/etc/resolv.conf"))

    assert kubelet["authentication"]["anonymous"] == {"enabled": False}
    assert kubelet["authorization"] == {"mode": "Webhook"}


def test_the_pods_control_groups_have_a_root_of_their_own():
    kubelet = json.loads(render.kubelet(LAYOUT, node_ip="192.0.2.2", resolv_conf="/etc/resolv.conf"))

    assert kubelet["cgroupRoot"] == f"/{LAYOUT.cgroup}"
    assert Layout(Path("/other")).cgroup != LAYOUT.cgroup


def test_loading_the_masquerade_twice_is_harmless():
    declared, deleted, filled = render.masquerade().partition("delete table ip slipway_cluster\n")

    assert (declared, deleted != "") == ("table ip slipway_cluster\n", True)
    assert "ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/24" in filled


def test_no_two_components_share_a_port():
    ports = [port for part in components(MACHINE) for _, port in part.ports]

    assert len(ports) == len(set(ports))


def test_what_others_need_starts_first():
    stages = {part.name: part.stage for part in components(MACHINE)}

    assert stages["etcd"] < stages["kube-apiserver"] < stages["kubelet"]
    assert stages["containerd"] < stages["kubelet"]
    assert stages["kube-apiserver"] < stages["metrics-server"]


@pytest.mark.parametrize("part", list(components(MACHINE)), ids=lambda part: part.name)
def test_nothing_secret_is_on_a_command_line(part):
    assert not [argument for argument in part.arguments if "token" in argument or "password" in argument]


def test_no_part_may_do_everything():
    roles = [each for each in addons.manifests("192.0.2.2", b"pem")["items"] if each["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"]]

    assert rules
    assert not [rule for rule in rules if "*" in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]]


MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
40 22 0:30 / /state/run/containerd/a\\040b/rootfs rw - overlay overlay rw
41 40 0:31 / /state/kubelet/pods/x/volumes/token rw - tmpfs tmpfs rw
42 22 0:32 / /statement rw - tmpfs tmpfs rw
29 22 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
30 22 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_only_mounts_below_the_state_are_ours():
    assert mounts_below(Path("/state"), MOUNTS) == [
        "/state/run/containerd/a b/rootfs",
        "/state/kubelet/pods/x/volumes/token",
    ]


def test_both_versions_of_control_groups_are_found():
    found = parse(MOUNTS)

    assert (found.version1, found.version2) == (
        (Path("/sys/fs/cgroup/memory"),),
        (Path("/sys/fs/cgroup/unified"),),
    )


def test_a_pods_device_is_known_by_its_route():
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "192.0.2.0/24", "dev": "eth0"},
        {"dst": "10.244.0.5", "dev": "veth12"},
        {"dst": "10.244.0.6", "dev": "tun0"},
        {"dst": "10.245.0.5", "dev": "veth13"},
    ]

    assert pod_devices(routes) == {"veth12"}


def test_kind_gets_one_node_and_the_metrics_that_it_lacks():
    assert [node["role"] for node in config()["nodes"]] == ["control-plane"]
    assert [each["kind"] for each in metrics()].count("APIService") == 1
