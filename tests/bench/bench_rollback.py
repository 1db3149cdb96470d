"""`make bench-rollback`: rollouts and rollbacks in turn under a steady load, and whether anything failed.

Each round goes back to the content before, measures how long it took until that answered
and until nothing was answered by the other any more (on fresh and on open connections, of
HTTP and of gRPC), and lets the new one go live again. A few rounds more go every other way:
scaled by hand, a canary that is promoted, paused, given up. Prints a table and writes
``bench-results/rollback-<time>.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from tests.bench.bench_pipeline import machine

from lab import tell
from lab.install import ROOT, Lab, open_lab
from lab.kube import Manifest, condition, wait_for
from lab.load import GrpcCaller
from lab.projects import FLOWER, model_deployment, spec, write_project
from lab.steady import Loops, Seen, drive, question

NAMESPACE = "bench-rollback"
NAME = "bench"
LONGEST_SECONDS = 1500.0
MOVING_SECONDS = 10
CANARY = {"rollout": {"canary": {"pods": 1, "for": "1h"}}}


def main() -> None:
    """Prepare two versions, run the rounds, keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--others", type=int, default=5, help="rounds of every other way")
    parser.add_argument("--requests", type=int, default=1_000_000, help="answers to see at least")
    parser.add_argument("--kept", type=int, default=6, help="connections that are used again")
    parser.add_argument("--fresh", type=int, default=2, help="loops with a connection for each request")
    chosen = parser.parse_args()
    lab = open_lab()
    lab.git.start()
    lab.kube.delete("namespace", NAMESPACE)
    lab.kube.namespace(NAMESPACE)
    tell.step("Two versions")
    with TemporaryDirectory() as folder:
        for turn, strength in enumerate((1.0, 0.5)):
            commit = lab.git.publish(NAME, write_project(Path(folder) / str(turn), strength=strength))
            lab.kube.apply(_manifest(lab, commit))
            wait_for(lambda: _is_ready(lab), seconds=600, what="the version to be Ready", every=1)
    tell.step(f"{chosen.rounds} rollbacks and as many rollouts under load")
    results = uvloop.run(measure(lab, chosen))
    lab.kube.delete("namespace", NAMESPACE, wait=False)
    lab.git.stop()
    report({"machine": machine(), "at": datetime.now(UTC).isoformat(), **results})


async def measure(lab: Lab, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds under load."""
    service = lab.kube.get("service", NAME, NAMESPACE)
    assert service is not None
    request = question({"rows": [FLOWER]})
    seen, stop = Seen(enough=chosen.requests), asyncio.Event()
    host = service["spec"]["clusterIP"]
    load = asyncio.create_task(drive(host, request, seen, stop, Loops(chosen.kept, chosen.fresh)))
    began = time.monotonic()
    rounds, others = [], []
    try:
        with GrpcCaller(f"{host}:8081", NAME, FLOWER) as grpc:
            for turn in range(chosen.rounds):
                rounds.append(await _round(lab, seen, grpc, turn))
                tell.line(f"{turn + 1}: {rounds[-1]}; {seen.requests:,} requests, {len(seen.failures)} failed")
            for turn in range(chosen.others):
                others.append(await asyncio.to_thread(_every_other_way, lab, turn))
                tell.line(f"{turn + 1}: {others[-1]}; {seen.requests:,} requests, {len(seen.failures)} failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.reached.wait(), max(LONGEST_SECONDS - (time.monotonic() - began), 1.0))
    finally:
        stop.set()
        await load
    return {
        "rounds": rounds,
        "others": others,
        "grpc": {"requests": grpc.versions.total(), "failedCount": len(grpc.failures), "failed": grpc.failures[:20]},
        "seconds": round(time.monotonic() - began, 1),
        "requests": seen.requests,
        "failed": seen.failures[:20],
        "failedCount": len(seen.failures),
        "retried": seen.retried,
        "connections": {"kept": chosen.kept, "fresh": chosen.fresh},
    }


async def _round(lab: Lab, seen: Seen, grpc: GrpcCaller, turn: int) -> dict[str, float]:
    before = await asyncio.to_thread(_status, lab)
    new, old = before["live"]["content"], before["standby"]["content"]
    # What was opened before the last rollout stays with the content of before; a rollback is about the others.
    for _ in range(MOVING_SECONDS):
        seen.age += 1
        grpc.reopen()
        await asyncio.sleep(1)
        moved = (seen.last_sent.get((new, "kept"), 0.0), grpc.last_sent.get(new, 0.0))
        if time.monotonic() - min(moved) < 0.5:
            break
    else:
        raise RuntimeError("no open connection is with what is rolled back: nothing would be measured on it")
    asked, answer = time.monotonic(), seen.first_of(old)
    await _annotate(lab, f"slipway.dev/rollback=previous@back-{turn}")
    accepted = time.monotonic()
    back = await asyncio.wait_for(answer, 120)
    await asyncio.sleep(3)  # long enough to see a straggler on an open connection
    figures = {
        "asked to first answer": round(back - asked, 3),
        "accepted to first answer": round(max(back - accepted, 0.0), 3),
        "last by the other, fresh": round(max(seen.last_sent.get((new, "fresh"), 0.0) - asked, 0.0), 3),
        "last by the other, kept": round(max(seen.last_sent.get((new, "kept"), 0.0) - asked, 0.0), 3),
        "last by the other, gRPC": round(max(grpc.last_sent.get(new, 0.0) - asked, 0.0), 3),
    }
    resumed, answer = time.monotonic(), seen.first_of(new)
    await _annotate(lab, f"slipway.dev/resume=now@on-{turn}")
    figures["rollout"] = round(await asyncio.wait_for(answer, 300) - resumed, 3)
    # The standby must be warm again before the next round.
    await asyncio.to_thread(wait_for, lambda: _is_warm(lab), seconds=120, what="a warm standby", every=0.3)
    return figures


def _every_other_way(lab: Lab, turn: int) -> dict[str, float]:
    """Scale by hand, promote a canary that was paused for a while, give another one up; seconds that each took."""
    took: dict[str, float] = {}

    def wait(what: str, look: Callable[[], bool]) -> None:
        began = time.monotonic()
        wait_for(look, seconds=180, what=what, every=0.5)
        took[what] = round(time.monotonic() - began, 1)

    for replicas in (4, 2):
        lab.kube.run("scale", "modeldeployment", NAME, "-n", NAMESPACE, f"--replicas={replicas}")
        wait(f"{replicas} pods", partial(_has_pods, lab, replicas))
    with TemporaryDirectory() as folder:
        promoted, given_up = (
            lab.git.publish(NAME, write_project(Path(folder) / part, {"README.md": f"{part} {turn}\n"}))
            for part in ("promoted", "given-up")
        )
    lab.kube.apply(_manifest(lab, promoted, **CANARY))
    wait("canary", lambda: _says(lab, "Canary"))
    _annotate_now(lab, "slipway.dev/paused=true")
    wait("paused", lambda: _says(lab, "Paused"))
    _annotate_now(lab, "slipway.dev/paused-", f"slipway.dev/promote=now@promote-{turn}")
    wait("promoted", lambda: _is_ready(lab) and _status(lab)["live"]["commit"] == promoted)
    lab.kube.apply(_manifest(lab, given_up, **CANARY))
    wait("another canary", lambda: _says(lab, "Canary"))
    _annotate_now(lab, f"slipway.dev/abort=now@abort-{turn}")
    wait("given up", lambda: _says(lab, "Aborted"))
    # As `git revert` does it: what is live is wanted again, and nothing is held.
    lab.kube.apply(_manifest(lab, promoted))
    wait("reverted", lambda: _is_ready(lab))
    return took


def _has_pods(lab: Lab, replicas: int) -> bool:
    return _is_ready(lab) and _status(lab)["readyReplicas"] == replicas


def _says(lab: Lab, reason: str) -> bool:
    found = _resource(lab)
    current = found["status"].get("observedGeneration") == found["metadata"]["generation"]
    return current and condition(found, "Ready")["reason"] == reason


def _manifest(lab: Lab, commit: str, **fields: object) -> Manifest:
    wanted = {**spec(lab.git.url(NAME), commit), "serving": {"replicas": 2}, **fields}
    return model_deployment(NAME, NAMESPACE, wanted)


async def _annotate(lab: Lab, pair: str) -> None:
    await asyncio.to_thread(_annotate_now, lab, pair)


def _annotate_now(lab: Lab, *pairs: str) -> None:
    lab.kube.run("annotate", "modeldeployment", NAME, "-n", NAMESPACE, "--overwrite", *pairs)


def _resource(lab: Lab) -> Manifest:
    return lab.kube.get("modeldeployment", NAME, NAMESPACE) or {}


def _status(lab: Lab) -> dict[str, Any]:
    return dict(_resource(lab)["status"])


def _is_ready(lab: Lab) -> bool:
    found = _resource(lab)
    current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return current and condition(found, "Ready")["status"] == "True"


def _is_warm(lab: Lab) -> bool:
    return _is_ready(lab) and _status(lab).get("standby", {}).get("readyReplicas", 0) >= 2


def report(results: dict[str, Any]) -> None:
    """Print a table and keep the figures."""
    for name in results["rounds"][0]:
        values = [r[name] for r in results["rounds"]]
        print(f"{name:28} median {statistics.median(values):6.3f} s   worst {max(values):6.3f} s")
    print(
        f"{results['requests']:,} requests in {results['seconds']:.0f} s, {results['failedCount']} failed, "
        f"{results['retried']} sent again after a close before the first byte"
    )
    grpc = results["grpc"]
    print(f"{grpc['requests']:,} over one gRPC channel, {grpc['failedCount']} failed")
    for name in results["others"][0] if results["others"] else ():
        values = [r[name] for r in results["others"]]
        print(f"{name:28} median {statistics.median(values):6.1f} s   worst {max(values):6.1f} s")
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    path = folder / f"rollback-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
