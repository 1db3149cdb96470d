"""A platform with a compiler: who gets it, and what it does for a build that lacked it."""

from __future__ import annotations

import json

import pytest

COMPILER = f"reg.test/slipway/builder-compiler@sha256:{'c' * 64}"


@pytest.fixture
def with_compiler(world):
    """Do what `compiler.enabled` of the chart does."""

    def enable() -> None:
        settings = world.settings.model_dump(mode="json", by_alias=True)
        settings["images"]["compiler"] = COMPILER
        world.settings = type(world.settings).model_validate(settings)

    return enable


async def test_only_the_container_that_builds_sources_has_a_compiler(world, with_compiler):
    """It is the one without a Secret; what fetches and pushes stays as small as it was."""
    with_compiler()
    await world.look(world.add())
    (job,) = world.jobs("build")

    pod = job["spec"]["template"]["spec"]
    images = {c["name"]: c["image"] for c in (*pod["initContainers"], *pod["containers"])}
    builder = world.settings.images.builder
    assert images == {"fetch": builder, "run": COMPILER, "push": builder}


async def test_a_build_that_lacked_a_compiler_runs_again_once_there_is_one(world, with_compiler):
    key = world.add()
    await world.look(key)
    (job,) = world.jobs("build")
    said = json.dumps({"ok": False, "reason": "CompilerMissing", "message": "six must be compiled", "retry": False})
    world.cluster.fail_job(job, "run", message=said)
    await world.look(key)
    assert world.ready(key) == ("False", "CompilerMissing")

    with_compiler()
    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")
