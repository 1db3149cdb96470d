"""Random edits and requests for generated tests: in a world in memory, and on a real API server."""

from __future__ import annotations

from hypothesis import strategies as st

EDITS = st.one_of(
    st.tuples(st.just("source.git.ref"), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(st.just("serving"), st.sampled_from([{"replicas": 0}, {"replicas": 1}, {"replicas": 3}])),
    st.tuples(st.just("serving"), st.just({"autoscaling": {"minReplicas": 2, "maxReplicas": 3}})),
    st.tuples(st.just("model.train"), st.sampled_from([None, {"command": ["python", "t.py"]}])),
    st.tuples(st.just("export"), st.sampled_from([{"parity": {"maxLabelFlips": 0}}, {"parity": {"maxLabelFlips": 1}}])),
    st.tuples(st.just("revisionHistoryLimit"), st.just(50)),
)
REQUESTS = st.tuples(st.just("request"), st.sampled_from(["rollback previous", "rollback 1", "resume now"]))
SETTLED = {("True", "Serving"), ("False", "RolledBack")}
