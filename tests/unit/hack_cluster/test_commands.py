import socket
import subprocess

import pytest

from cluster import __main__ as commands
from cluster import foreign, local
from cluster.choice import Choice, choose
from cluster.layout import Layout
from cluster.status import Line, table
from tools.refusal import Refused

HAS_DOCKER = local.has_docker
"""The real one, before a test replaces it."""


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A machine without a cluster, Docker or settings."""
    monkeypatch.setenv("SLIPWAY_CLUSTER_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    for name in ("SLIPWAY_CONTEXT", "SLIPWAY_CLUSTER", "SLIPWAY_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(local, "has_docker", lambda: False)
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "docker", "chosen"),
    [
        pytest.param({"SLIPWAY_CONTEXT": "prod"}, True, Choice("context", "prod"), id="a-named-context-wins"),
        pytest.param({}, True, Choice("kind"), id="kind-where-docker-runs"),
        pytest.param({}, False, Choice("local"), id="else-this-machine"),
        pytest.param({"SLIPWAY_CLUSTER": "local"}, True, Choice("local"), id="told-local"),
        pytest.param({"SLIPWAY_CLUSTER": "kind"}, False, Choice("kind"), id="told-kind"),
    ],
)
def test_which_cluster(nowhere, monkeypatch, environment, docker, chosen):
    monkeypatch.setattr(local, "has_docker", lambda: docker)

    assert choose(environment, Layout(nowhere)) == chosen


def test_a_cluster_that_is_there_stays_when_docker_comes(nowhere, monkeypatch):
    monkeypatch.setattr(local, "has_docker", lambda: True)
    (nowhere / "admin.kubeconfig").write_text("{}")

    assert choose({}, Layout(nowhere)) == Choice("local")


def test_an_unknown_choice_is_refused(tmp_path):
    with pytest.raises(Refused, match="set it to local or kind"):
        choose({"SLIPWAY_CLUSTER": "minikube"}, Layout(tmp_path))


@pytest.mark.parametrize("command", ["kubeconfig", "registry", "status"])
def test_without_a_cluster_one_is_told_how_to_get_it(capsys, command):
    assert commands.main([command]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert "`make cluster-up` starts one" in err


@pytest.mark.parametrize("command", ["kubeconfig", "registry"])
def test_asking_starts_nothing_and_prints_one_line(capsys, monkeypatch, command):
    layout = Layout.of_machine()
    layout.root.mkdir()
    layout.kubeconfig.write_text("{}")
    (layout.root / "registry-prefix").write_text("192.0.2.2:5000\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was started"))

    assert commands.main([command]) == 0

    assert capsys.readouterr().out == {"kubeconfig": f"{layout.kubeconfig}\n", "registry": "192.0.2.2:5000\n"}[command]


def test_down_where_nothing_is_says_so(capsys):
    assert commands.main(["down"]) == 0

    assert "There is no cluster on this machine" in capsys.readouterr().err


def test_a_cluster_of_somebody_else_is_left_alone(capsys, monkeypatch):
    monkeypatch.setenv("SLIPWAY_CONTEXT", "prod")

    assert commands.main(["down"]) == 0

    assert "left as it is" in capsys.readouterr().err


def test_a_cluster_of_somebody_else_needs_a_registry_to_be_named(monkeypatch):
    monkeypatch.delenv("SLIPWAY_REGISTRY", raising=False)

    with pytest.raises(Refused, match="set SLIPWAY_REGISTRY"):
        foreign.registry()


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(commands, "up", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))

    assert commands.main(["up"]) == 130

    assert "goes on from here" in capsys.readouterr().err


def test_waiting_in_vain_names_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "READY_SECONDS", 0.1)

    with pytest.raises(Refused, match=rf"in vain for the node.*{tmp_path}"):
        local.wait("the node", lambda: False, tmp_path / "kubelet.log")


def test_the_last_words_are_an_errors(tmp_path):
    log = tmp_path / "etcd.log"
    log.write_text("I starting\nError: no space left\nI goodbye\n\n")

    assert local.last_words(log) == "Error: no space left"


def test_a_table_gives_advice_below_the_part_that_needs_it():
    laid = table([Line("etcd", "running", "7", "50 MB", "3.0 s"), Line("coredns", "down", advice="start it")])

    assert laid.splitlines()[1:] == ["etcd     running  7    50 MB   3.0 s", "coredns  down", "  → start it"]


def test_a_listening_socket_is_not_yet_a_connection(tmp_path):
    path = tmp_path / "c.sock"
    assert not local._connects(path)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert local._connects(path)


def test_docker_without_an_engine_is_no_docker(monkeypatch, tmp_path):
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert not HAS_DOCKER()


def test_the_clusters_own_addresses_go_past_a_proxy():
    given = {"https_proxy": "http://proxy.example.com:3128", "NO_PROXY": ".example.com", "PATH": "/bin"}

    environment = local.environment_for(given, "192.0.2.2")

    assert environment["NO_PROXY"] == environment["no_proxy"]
    assert {".example.com", "192.0.2.2", "10.96.0.0/16", "127.0.0.1", ".svc"} <= set(environment["NO_PROXY"].split(","))
    assert environment["https_proxy"] == given["https_proxy"]


def test_no_variable_configures_a_component_behind_our_back():
    given = {"ETCD_DATA_DIR": "/x", "REGISTRY_HTTP_ADDR": ":1", "KUBECONFIG": "/x", "HOME": "/home/ada"}

    assert local.environment_for(given, "192.0.2.2") == {"HOME": "/home/ada"}
