"""What the log no longer holds goes from the registry too, by a Job on the real cluster; what answers stays."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.install import Lab
from lab.kube import Manifest, wait_for
from lab.log import entries
from lab.projects import locked_by, model_deployment, trained_spec, write_trained_project

NAME = "pruned"
LOCK_FILE = "pylock.toml"
LIMIT = 1
PARTS = ("package", "image", "artifact", "modelImage")


def all_have_ended(lab: Lab, namespace: str) -> bool:
    """Say whether there are Jobs that removed, and each succeeded."""
    jobs = lab.kube.list("jobs", namespace, f"slipway.dev/owner={NAME},slipway.dev/step=remove")
    return bool(jobs) and all(job["status"].get("succeeded") == 1 for job in jobs)


def is_there(lab: Lab, entry: dict[str, Any], digest: str) -> bool:
    """Ask the registry for a manifest of the entry's repository."""
    reference = f"{entry['repository']}@{entry['digests'][digest]}"
    asked = subprocess.run(
        [str(lab.crane), "manifest", "--insecure", reference], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0 or "MANIFEST_UNKNOWN" in asked.stderr, asked.stderr
    return asked.returncode == 0


def test_what_goes_beyond_the_limit_goes_from_the_registry_too(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """Four commits and a limit of one: the first ones go with their images, the newest two are whole."""
    kept: dict[int, dict[str, Any]] = {}
    for number in range(1, 5):
        files = {"README.md": f"version {number}\n", **locked_by(LOCK_FILE)}
        tree = write_trained_project(tmp_path / str(number), files)
        commit = lab.git.publish(NAME, tree)
        source = {"git": {"url": lab.git.url(NAME), "ref": commit}}
        wanted = {**trained_spec(source, LOCK_FILE), "revisionHistoryLimit": LIMIT}
        lab.kube.apply(model_deployment(NAME, namespace, wanted))
        assert settled(NAME, namespace)["status"]["live"]["commit"] == commit
        kept |= {entry["number"]: entry for entry in entries(lab.kube, NAME, namespace)}
    assert sorted(kept) == [1, 2, 3, 4]

    wait_for(
        lambda: len(entries(lab.kube, NAME, namespace)) == LIMIT + 1, seconds=120, what="the log to have its length"
    )

    numbers = [entry["number"] for entry in entries(lab.kube, NAME, namespace)]
    assert numbers == [3, 4]
    # The newest Job that removed stays for its logs; the operator reads its answer before Kubernetes calls it ended.
    wait_for(lambda: all_have_ended(lab, namespace), seconds=60, what="the Jobs that removed to have ended well")
    needed = {kept[number]["digests"][name] for number in numbers for name in PARTS}
    for number, entry in kept.items():
        for name in PARTS:
            # One model that never changed is one artifact: it stays as long as anybody names it.
            assert is_there(lab, entry, name) == (entry["digests"][name] in needed), f"{name} of revision {number}"
    gone = {name for name in PARTS if kept[1]["digests"][name] not in needed}
    assert gone >= {"package", "image"}, "each commit has those of its own"
