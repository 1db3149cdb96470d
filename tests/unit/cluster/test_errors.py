"""The API server's refusals: who must act."""

from __future__ import annotations

import pytest

from slipway_operator.cluster.errors import GoneError, error_of
from slipway_operator.domain.errors import Blocked, Waiting


@pytest.mark.parametrize(
    ("status", "message", "kind", "reason"),
    [
        (403, 'jobs.batch "x" is forbidden: exceeded quota: q', Waiting, "QuotaExceeded"),
        (403, "User cannot create resource", Waiting, "Forbidden"),
        (401, "Unauthorized", Waiting, "Unauthorized"),
        (429, "slow down", Waiting, "TooManyRequests"),
        (500, "etcd is away", Waiting, "ApiServerUnavailable"),
        (503, "unavailable", Waiting, "ApiServerUnavailable"),
        (422, "spec: Invalid value", Blocked, "PodRefused"),
        (400, "bad", Blocked, "PodRefused"),
    ],
)
def test_who_must_act(status, message, kind, reason):
    error = error_of(status, message, {})

    assert isinstance(error, kind)
    assert error.reason == reason
    assert message.split(":")[0] in error.message


def test_a_namespace_that_is_going_is_no_error_of_anybody():
    message = 'jobs.batch "x" is forbidden: unable to create new content in namespace n because it is being terminated'

    assert isinstance(error_of(403, message, {}), GoneError)
    assert isinstance(error_of(403, "x", {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}), GoneError)


def test_the_server_says_when_to_come_back():
    error = error_of(429, "m", {"details": {"retryAfterSeconds": 17}})

    assert isinstance(error, Waiting)
    assert error.retry_after == 17
