"""How the operator's process is put together."""

from __future__ import annotations

import json

from slipway_operator.cluster.kinds import OWNED
from slipway_operator.controllers.process import CONNECTIONS, api_client


async def test_watches_of_many_namespaces_leave_connections_for_requests(tmp_path, monkeypatch):
    """Each watch keeps one: with a fixed number of them, eight namespaces left none for anything else."""
    path = tmp_path / "kubeconfig"
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [context],
        "current-context": "here",
    }
    path.write_text(json.dumps(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    namespaces = [f"team-{number}" for number in range(20)]
    async with await api_client(namespaces) as api:
        assert api.configuration.connection_pool_maxsize - len(OWNED) * len(namespaces) == CONNECTIONS
