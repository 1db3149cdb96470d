"""The probes' pages."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from slipway_operator.controllers import web as web_module
from slipway_operator.controllers.metrics import Metrics
from slipway_operator.controllers.web import Web, health
from slipway_operator.domain.keys import Key


@pytest.fixture
def state() -> dict[str, bool]:
    return {"alive": True}


@pytest.fixture
def web(state: dict[str, bool]) -> Iterator[Web]:
    metrics = Metrics()
    with metrics.reconcile("ModelDeployment"):
        pass
    pages = {
        "/healthz": health(lambda: state["alive"], "alive", "the loop stands still"),
        "/metrics": lambda: (200, metrics.text(keys=3, kept=27, watch_age=1.25, requests={"GET": 7})),
    }
    served = Web(pages, 0)
    yield served
    served.close()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def get(web: Web, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{web.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_probe_sees_a_change_at_once(web, state):
    assert get(web, "/healthz") == (200, "alive\n")
    state["alive"] = False
    assert get(web, "/healthz") == (503, "the loop stands still\n")


def test_a_condition_is_one_series_with_its_reason():
    metrics, key = Metrics(), Key("airline", "flight-delay")

    def series(status: str, reason: str) -> list[str]:
        metrics.told(key, {"conditions": [{"type": "RollbackReady", "status": status, "reason": reason}]})
        text = metrics.text(keys=1, kept=0, watch_age=0.0, requests={})
        return [line for line in text.splitlines() if line.startswith("slipway_modeldeployment_condition{")]

    of = 'slipway_modeldeployment_condition{namespace="airline",name="flight-delay",type="RollbackReady"'
    assert series("False", "StandbyNotReady") == [f'{of},status="False",reason="StandbyNotReady"}} 1']
    assert series("False", "ArtifactsMissing") == [f'{of},status="False",reason="ArtifactsMissing"}} 1'], (
        "the old is gone"
    )


def test_metrics_are_prometheus_text(web):
    status, text = get(web, "/metrics")

    assert status == 200
    assert 'slipway_reconciles_total{kind="ModelDeployment",result="success"} 1' in text
    assert "slipway_objects 3" in text
    assert "slipway_kept_objects 27" in text
    assert 'slipway_api_requests_total{method="GET"} 7' in text
    assert "slipway_watch_age_seconds 1.2" in text


def test_other_paths_say_what_there_is(web):
    assert get(web, "/")[0] == 404


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_probes_reach_it_by_both_families(web):
    assert get(web, "/healthz", "[::1]") == get(web, "/healthz") == (200, "alive\n")


def test_without_ipv6_it_answers_on_ipv4(monkeypatch):
    def refuse(_server):
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr(web_module._DualStackServer, "server_bind", refuse)
    served = Web({"/healthz": health(lambda: True, "alive", "")}, 0)
    try:
        assert get(served, "/healthz") == (200, "alive\n")
    finally:
        served.close()
