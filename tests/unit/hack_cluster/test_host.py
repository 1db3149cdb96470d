import os
import socket
import threading

import pytest

from cluster import host
from tools.refusal import Refused

ALL = (1 << 41) - 1


@pytest.mark.parametrize(
    ("platform", "user", "capabilities", "said"),
    [
        pytest.param("darwin", 0, ALL, "needs Linux, and this is darwin", id="not-linux"),
        pytest.param("linux", 1000, ALL, "with sudo", id="not-root"),
        pytest.param("linux", 0, ALL & ~(1 << 21), "lacks CAP_SYS_ADMIN", id="no-sys-admin"),
        pytest.param("linux", 0, ALL & ~(1 << 12), "lacks CAP_NET_ADMIN", id="no-net-admin"),
    ],
)
def test_a_machine_that_cannot_is_refused_with_a_way_out(platform, user, capabilities, said):
    with pytest.raises(Refused, match=said) as refused:
        host.check_privileges(platform, user, capabilities)

    assert "SLIPWAY_CONTEXT" in str(refused.value)


def test_root_without_the_right_to_raise_limits_is_enough():
    host.check_privileges("linux", 0, ALL & ~(1 << 24))


def test_capabilities_are_read_from_the_status():
    assert host.effective_capabilities("Name:\tx\nCapPrm:\t0\nCapEff:\t000001fffeffffff\n") == 0x1FFFEFFFFFF


def test_a_full_disk_is_refused_with_what_is_left(tmp_path):
    with pytest.raises(Refused, match=r"Only 1\.2 GB are free .* needs 6\.0 GB.*SLIPWAY_CLUSTER_DIR"):
        host.check_disk(tmp_path / "not" / "there", free=1_200_000_000)


def test_a_taken_port_is_refused_with_who_has_it():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]

        with pytest.raises(Refused, match=rf"etcd needs port {port}, and .* \(process {os.getpid()}\)"):
            host.check_port("127.0.0.1", port, "etcd")


def test_a_port_that_was_just_left_can_be_taken():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]

    host.check_port("127.0.0.1", port, "etcd")


def test_a_port_that_is_free_in_a_moment_is_waited_for():
    holder = socket.create_server(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    leaving = threading.Timer(0.2, holder.close)
    leaving.start()

    host.await_port("127.0.0.1", port, "etcd", patience=20)

    leaving.join()


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:094B 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0
   2: 0100007F:1A0A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0 100 0 0 10 0
"""


def test_only_listeners_of_the_port_count():
    assert host.listening_sockets(TABLE, 2379) == {"socket:[4242]"}


LO = {"ifname": "lo", "operstate": "UNKNOWN", "addr_info": [{"family": "inet", "local": "127.0.0.1", "scope": "host"}]}


def device(name: str, address: str, **more: object) -> dict[str, object]:
    return {
        "ifname": name,
        "operstate": "UP",
        "addr_info": [{"family": "inet", "local": address, "scope": "global"}],
    } | more


@pytest.mark.parametrize(
    ("routes", "devices", "chosen"),
    [
        pytest.param([{"dev": "eth0"}], [LO, device("eth0", "192.0.2.2")], "192.0.2.2", id="default-route"),
        pytest.param(
            [{"dev": "wlan0", "metric": 600}, {"dev": "eth0", "metric": 100}],
            [device("wlan0", "198.51.100.3"), device("eth0", "192.0.2.2")],
            "192.0.2.2",
            id="least-metric",
        ),
        pytest.param(
            [{"dev": "eth0", "prefsrc": "192.0.2.9"}], [device("eth0", "192.0.2.2")], "192.0.2.9", id="preferred-source"
        ),
        pytest.param([], [LO, device("eth1", "203.0.113.4")], "203.0.113.4", id="no-route-but-an-address"),
        pytest.param([], [LO], None, id="loopback-only"),
        pytest.param(
            [], [LO | {"addr_info": [{"family": "inet", "local": "10.243.0.1", "scope": "global"}]}], None, id="our-own"
        ),
        pytest.param([], [device("veth1", "10.244.0.1", link_netnsid=0)], None, id="a-pods-device"),
        pytest.param([], [device("eth1", "203.0.113.4", operstate="DOWN")], None, id="switched-off"),
    ],
)
def test_the_nodes_address(routes, devices, chosen):
    assert host.node_address(routes, devices) == chosen
