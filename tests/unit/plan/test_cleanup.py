"""What goes with the last use of a content, in which order, and what keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from slipway_operator.domain.requests import Removed, RemoveRequest
from slipway_operator.domain.revisions import LoggedEntry, read_log
from slipway_operator.plan.chain import remembered
from slipway_operator.plan.cleanup import BATCH, Cleanup, digests_in, plan_cleanup, usable
from slipway_operator.plan.observed import Manifest

DONE = Removed(removed=6, gone=0)
DOWN = json.dumps({"ok": False, "reason": "RegistryUnavailable", "message": "it is down", "retry": True})
DENIED = json.dumps({"ok": False, "reason": "RegistryAccessDenied", "message": "may not delete"})


class Cleaning:
    """A deployment with a log, and somebody who carries out what the clean-up says."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.key = world.add()

    async def start(self, contents: int = 3) -> None:
        for number in range(contents):
            self.world.commit = f"{number:040x}"
            self.world.edit(self.key, "source.git.ref", f"v{number}")
            await self.world.settle(self.key)

    async def entries(self) -> tuple[LoggedEntry, ...]:
        return read_log((await self.world.observe(self.key)).entries)[0]

    async def look(
        self, *numbers: int, act: Sequence[str] = ("create", "delete", "prune"), chain: Any = None, **more: Any
    ) -> Cleanup:
        """Plan to prune these entries, and carry out a part of the plan."""
        seen = await self.world.observe(self.key)
        entries = read_log(seen.entries)[0]
        pruned = [e for e in entries if e.number in numbers]
        plan = plan_cleanup(seen, entries, pruned, chain=chain, elsewhere=more.pop("elsewhere", frozenset()), **more)
        if plan.create is not None and "create" in act:
            await self.world.cluster.create(plan.create)
        gone = [j["metadata"]["name"] for j in plan.delete] if "delete" in act else []
        gone += [e.name for e in plan.prune] if "prune" in act else []
        for name in gone:
            self.world.cluster.remove(next(r for r in self.world.cluster.objects if r.name == name))
        return plan

    def jobs(self) -> list[Manifest]:
        found: list[Manifest] = self.world.jobs("remove")
        return found

    def numbers(self) -> list[int]:
        return [e["data"]["number"] for e in self.world.entries()]

    def open(self) -> Manifest:
        (job,) = [j for j in self.jobs() if not (j.get("status") or {}).get("conditions")]
        return job

    def finish(self, answer: Removed = DONE) -> None:
        self.world.cluster.finish_job(self.open(), answer)

    def fail(self, message: str) -> None:
        self.world.cluster.fail_job(self.open(), "push", message=message)


@pytest.fixture
async def cleaning(world):
    made = Cleaning(world)
    await made.start()
    return made


def request_of(job: Manifest) -> dict[str, Any]:
    (push,) = job["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = json.loads(next(e["value"] for e in push["env"] if e["name"] == "SLIPWAY_REQUEST"))
    return found


def alone(entries: Sequence[LoggedEntry], number: int) -> set[str]:
    """What one entry's content has in its own repository and no other's."""

    def own(entry: LoggedEntry) -> set[str]:
        data = entry.entry
        built = next(r.answer for r in data.steps if r.name == "Build")
        d = data.digests
        return {d.package, d.image, built["exportImage"], d.model_image, d.artifact, str(d.trained)}

    return own(entries[number - 1]).difference(*(own(e) for e in entries if e.number != number))


async def test_nothing_to_prune_is_nothing_to_do(cleaning):
    assert await cleaning.look() == Cleanup(state="Idle")


async def test_the_job_comes_first_and_the_entry_goes_once_it_has_succeeded(cleaning):
    entries = await cleaning.entries()
    plan = await cleaning.look(1)

    assert (plan.state, plan.prune) == ("Removing", ())
    (job,) = cleaning.jobs()
    request = request_of(job)
    assert set(request["digests"]) == alone(entries, 1)
    assert len(request["digests"]) == 3, "package, image and export image; all three were trained to one model"
    assert "environments" not in request or request["environments"] == [], "all three have one environment"
    assert (request["namespace"], request["name"], request["registry"]["prefix"]) == (
        "airline",
        "flight-delay",
        "reg.test/models",
    )
    assert (await cleaning.look(1)).prune == ()
    cleaning.finish()
    plan = await cleaning.look(1)
    assert [e.number for e in plan.prune] == [1]
    assert plan.message == "revision 1 is removed"
    assert cleaning.numbers() == [2, 3]
    settled = await cleaning.look()
    assert (settled.prune, settled.create, settled.delete) == ((), None, ()), "the newest Job stays for its logs"


async def test_the_job_is_plain_and_holds_only_the_registrys_secret(cleaning, world):
    world.settings = world.settings.model_copy(
        update={"registry": world.settings.registry.model_copy(update={"secret_name": "registry-secret"})}
    )
    await cleaning.look(1)
    (job,) = cleaning.jobs()
    pod = job["spec"]["template"]["spec"]
    (push,) = pod["containers"]

    assert push["args"] == ["remove"]
    assert len(RemoveRequest.model_validate(request_of(job)).digests) == 3, "as the Job will read it"
    assert pod["automountServiceAccountToken"] is False
    assert [m["mountPath"] for m in push["volumeMounts"] if m["mountPath"].startswith("/secrets")] == [
        "/secrets/registry"
    ]


async def test_an_entry_whose_content_is_in_use_goes_at_once(cleaning, world):
    world.commit = f"{0:040x}"
    world.edit(cleaning.key, "source.git.ref", "v0")
    await world.settle(cleaning.key)
    entries = await cleaning.entries()
    assert entries[0].entry.content == entries[3].entry.content
    plan = await cleaning.look(1)

    assert (plan.create, [e.number for e in plan.prune]) == (None, [1])


@pytest.mark.parametrize("died", [(), ("create",), ("create", "delete")])
async def test_an_operator_that_ends_between_two_writes_goes_on(cleaning, died):
    """Whatever part of each plan is carried out, the next look goes on from the state."""
    await cleaning.look(1, act=died)
    await cleaning.look(1)
    assert len(cleaning.jobs()) == 1
    cleaning.finish()
    await cleaning.look(1, act=died)
    await cleaning.look(1)

    assert cleaning.numbers() == [2, 3]
    assert len(cleaning.jobs()) == 1, "nothing is removed twice"


async def test_two_entries_of_which_one_was_deleted_before_the_end(cleaning, world):
    await cleaning.look(1, 2)
    cleaning.finish()
    world.cluster.remove(next(r for r in world.cluster.objects if r.name == "flight-delay-1"))
    plan = await cleaning.look(2)

    assert ([e.number for e in plan.prune], plan.create) == ([2], None)


async def test_entries_wait_while_the_registry_is_down(cleaning, world):
    await cleaning.look(1)
    for attempt in range(1, 9):
        cleaning.fail(DOWN)
        plan = await cleaning.look(1)
        assert (plan.state, plan.prune) == ("Waiting", ())
        assert plan.trouble.stalled is (attempt > 6)
        assert 0 < plan.requeue_after <= 300
        world.cluster.pass_time(plan.requeue_after)
        assert (await cleaning.look(1)).create is not None
        await cleaning.look(1)
        assert len(cleaning.jobs()) == 1, "only the newest attempt stays"
    cleaning.finish()
    await cleaning.look(1)

    assert cleaning.numbers() == [2, 3]


async def test_credentials_that_may_not_delete_keep_the_entry_until_somebody_acts(cleaning, world):
    await cleaning.look(1)
    cleaning.fail(DENIED)
    world.cluster.pass_time(100_000)
    plan = await cleaning.look(1)
    assert (plan.state, plan.create, plan.prune) == ("Failed", None, ())
    assert (plan.trouble.reason, plan.trouble.stalled) == ("RegistryAccessDenied", True)
    world.annotate(cleaning.key, "slipway.dev/retry", "1")

    assert (await cleaning.look(1)).create is not None


async def test_failed_jobs_do_not_pile_up_as_more_entries_wait(cleaning, world):
    world.commit = "9" * 40
    world.edit(cleaning.key, "source.git.ref", "v9")
    await world.settle(cleaning.key)
    for number in (1, 2):
        await cleaning.look(*range(1, number + 1))
        cleaning.fail(DENIED)
    await cleaning.look(1, 2, 3)
    await cleaning.look(1, 2, 3)

    assert len(cleaning.jobs()) == 2, "the one that runs, and the newest before it for its logs"
    assert cleaning.open()["metadata"]["annotations"]["slipway.dev/entries"].count(",") == 2


async def test_a_registry_that_deletes_nothing_lets_entries_go_and_says_so(cleaning):
    await cleaning.look(1)
    cleaning.finish(Removed(removed=0, gone=0, refused="the registry lets nobody delete"))
    plan = await cleaning.look(1)

    assert [e.number for e in plan.prune] == [1]
    assert (plan.trouble.reason, plan.trouble.message) == ("RegistryKeepsAll", "the registry lets nobody delete")
    assert (await cleaning.look()).trouble is None, "said once"


async def test_without_clean_up_entries_go_and_the_registry_is_left_alone(cleaning, world):
    world.settings = world.settings.model_copy(
        update={"clean_up": world.settings.clean_up.model_copy(update={"registry": False})}
    )
    plan = await cleaning.look(1)

    assert ([e.number for e in plan.prune], plan.create) == ([1], None)


async def test_what_is_being_removed_counts_for_nothing_else(cleaning, world):
    entries = await cleaning.entries()
    assert usable(await world.observe(cleaning.key), entries) == entries
    await cleaning.look(1)
    seen = await world.observe(cleaning.key)

    assert [e.number for e in usable(seen, entries)] == [2, 3]
    cleaning.fail(DENIED)
    assert [e.number for e in usable(await world.observe(cleaning.key), entries)] == [2, 3], "half of it may be gone"


async def test_a_raised_limit_does_not_bring_back_what_is_half_removed(cleaning):
    await cleaning.look(1)
    cleaning.finish()
    plan = await cleaning.look()

    assert [e.number for e in plan.prune] == [1]


async def test_nothing_is_removed_while_something_is_made(cleaning, world):
    world.commit = "9" * 40
    world.edit(cleaning.key, "source.git.ref", "v9")
    await world.look(cleaning.key)
    assert world.unfinished()
    plan = await cleaning.look(1)
    assert (plan.state, plan.create, plan.prune) == ("Waiting", None, ())
    await world.settle(cleaning.key)

    assert (await cleaning.look(1)).create is not None


async def test_nothing_is_made_while_something_is_removed(cleaning, world):
    await cleaning.look(1)
    world.commit = "9" * 40
    world.edit(cleaning.key, "source.git.ref", "v9")
    wait = await world.look(cleaning.key)
    assert world.jobs("build") == [] or all(j not in world.unfinished() for j in world.jobs("build"))
    assert wait <= 3
    assert "removed" in world.condition(cleaning.key, "Ready")["message"]
    cleaning.finish()
    await world.look(cleaning.key)

    assert [j["metadata"]["labels"]["slipway.dev/step"] for j in world.unfinished()] == ["build"]


async def test_what_was_made_again_meanwhile_stays(cleaning):
    """The same commit gives the same digests: what a way has made and no entry names yet is in use."""
    seen = await cleaning.world.observe(cleaning.key)
    entries = read_log(seen.entries)[0]
    before = plan_cleanup(seen, entries, entries[:1], chain=None, elsewhere=frozenset())
    kept = plan_cleanup(
        seen, entries, entries[:1], chain=None, needed=[entries[0].entry.digests], elsewhere=frozenset()
    )

    assert before.create is not None
    assert len(request_of(before.create)["digests"]) == 3
    assert kept.create is not None
    assert len(request_of(kept.create)["digests"]) == 1, "of a needed content only the image of its export goes"


async def test_the_results_of_the_way_stay(cleaning):
    entries = await cleaning.entries()
    way = remembered(entries[0], ())
    plan = await cleaning.look(1, chain=way)

    assert ([e.number for e in plan.prune], plan.create) == ([1], None)


async def test_an_environment_goes_with_its_last_user_anywhere(cleaning, world):
    seen = await world.observe(cleaning.key)
    entries = read_log(seen.entries)[0]
    first = entries[0]
    other = "sha256:" + "e" * 64
    digests = first.entry.digests.model_copy(update={"environment": other})
    first = first.model_copy(update={"entry": first.entry.model_copy(update={"digests": digests})})
    log = (first, *entries[1:])

    def asked(elsewhere: frozenset[str] | None) -> tuple[list[str], bool, bool]:
        plan = plan_cleanup(seen, log, log[:1], chain=None, elsewhere=elsewhere)
        assert plan.create is not None
        request = request_of(plan.create)
        package = first.entry.digests.package in request["digests"]
        return request.get("environments", []), other in request["digests"], package

    assert asked(frozenset()) == ([other], True, True)
    assert asked(frozenset({other})) == ([], False, True)
    assert asked(frozenset({first.entry.digests.package})) == ([other], True, False)
    assert asked(None) == ([], True, False), "where others cannot be seen, only what nobody else can use goes"


async def test_what_a_person_pushed_and_an_older_registry_stay(cleaning, world):
    seen = await world.observe(cleaning.key)
    entries = read_log(seen.entries)[0]

    def changed(**update: Any) -> tuple[LoggedEntry, ...]:
        entry = entries[0].entry.model_copy(update=update)
        return (entries[0].model_copy(update={"entry": entry}), *entries[1:])

    package = entries[0].entry.digests.package
    pushed = changed(spec={"source": {"package": {"image": f"reg.test/models/airline/flight-delay@{package}"}}})
    plan = plan_cleanup(seen, pushed, pushed[:1], chain=None, elsewhere=frozenset())
    assert plan.create is not None
    assert package not in request_of(plan.create)["digests"]

    moved = changed(repository="old.test/models/airline/flight-delay")
    plan = plan_cleanup(seen, moved, moved[:1], chain=None, elsewhere=frozenset())
    assert (plan.create, len(plan.prune)) == (None, 1)


async def test_many_entries_go_in_batches(world):
    """The request has to fit an environment variable of one process (128 KiB)."""
    cleaning = Cleaning(world)
    world.edit(cleaning.key, "revisionHistoryLimit", 50)
    await cleaning.start(BATCH + 3)
    plan = await cleaning.look(*range(1, BATCH + 3))
    assert plan.create is not None
    (job,) = cleaning.jobs()
    assert job["metadata"]["annotations"]["slipway.dev/entries"].count(",") == BATCH - 1
    assert len(json.dumps(request_of(job))) < 100_000
    cleaning.finish()
    plan = await cleaning.look(*range(1, BATCH + 3))
    assert len(plan.prune) == BATCH
    assert plan.create is not None, "the rest follows at once"
    cleaning.finish()
    await cleaning.look(*range(1, BATCH + 3))

    assert cleaning.numbers() == [BATCH + 3]


async def test_the_live_entry_never_goes(cleaning):
    assert (await cleaning.look(3)).create is None
    assert cleaning.numbers() == [1, 2, 3]


def test_digests_are_found_wherever_they_are_named():
    digest = "sha256:" + "a" * 64
    objects: list[Manifest] = [{"spec": {"source": {"package": {"image": f"r.test/x@{digest}"}}}}, {"data": [{"n": 1}]}]

    assert digests_in(objects) == {digest}


MAKING = ("build", "train", "export")


def made(world: Any) -> set[str]:
    return {j["metadata"]["name"] for step in MAKING for j in world.jobs(step)}


@pytest.fixture
async def removing(world):
    """Revision 2's content is being removed; its Jobs were the newest but one of their steps, kept for their logs."""
    key = world.add()
    await world.settle(key)
    await world.deploy(key, "v2", "beef")
    kept = made(world)
    world.commit = "4f2a" * 10
    world.edit(key, "source.git.ref", "v1.0.0")
    await world.settle(key)
    world.commit = "cafe" * 10
    world.edit(key, "source.git.ref", "v3")
    world.edit(key, "revisionHistoryLimit", 1)
    for _ in range(12):
        await world.look(key)
        if world.jobs("remove"):
            return key, kept
        world.play()
    raise AssertionError("nothing is removed")


def ask_for_revision_2(world: Any, key: Any) -> None:
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2")


@pytest.mark.parametrize("when", ["while-it-is-removed", "in-the-look-at-which-it-is", "once-it-is-removed"])
async def test_what_was_removed_is_made_anew_when_it_is_asked_for_again(world, removing, when):
    """A finished Job that is kept for its logs answers with what is gone."""
    key, _ = removing
    if when == "while-it-is-removed":
        ask_for_revision_2(world, key)
        await world.look(key)
        assert "removed" in world.condition(key, "Ready")["message"]
    world.cluster.pass_time(1)
    if when == "in-the-look-at-which-it-is":
        world.play()
        ask_for_revision_2(world, key)
    before = made(world)
    await world.settle(key)
    if when == "once-it-is-removed":
        ask_for_revision_2(world, key)
        before = made(world)
        await world.settle(key)

    assert world.ready(key) == ("True", "Serving")
    assert world.entries()[-1]["data"]["digests"]["commit"] == "beef" * 10
    steps = {name.split("-")[2] for name in made(world) - before}
    assert steps == {"build"}, "its images are pushed again; the model, which others have too, was never removed"


async def test_jobs_of_what_stays_are_kept_while_something_is_removed(world, removing):
    key, _ = removing
    kept = {r["key"] for e in world.entries() if e["data"]["number"] != 2 for r in e["data"]["steps"]}
    names = {
        j["metadata"]["name"]
        for step in MAKING
        for j in world.jobs(step)
        if j["metadata"]["labels"]["slipway.dev/key"] in kept
    }
    assert names
    await world.look(key)

    assert names <= made(world)


async def test_what_is_made_anew_while_a_removal_fails_is_kept(world, removing):
    key, _ = removing
    (job,) = world.jobs("remove")
    world.cluster.fail_job(job, "push", message=DENIED)
    world.cluster.pass_time(60)
    ask_for_revision_2(world, key)
    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")
    jobs = made(world)
    world.cluster.pass_time(3600)
    await world.settle(key)
    assert made(world) == jobs, "nothing is made in turns"


def played(world: Any, namespace: str) -> None:
    """Let the Jobs of one namespace succeed; those of others go on."""
    for job in world.unfinished():
        if job["metadata"]["namespace"] == namespace:
            world.cluster.finish_job(job, world.answer(job))
    world.cluster.settle_deployments()


async def test_an_environment_that_another_deployment_has_built_on_stays_while_that_trains(world):
    """No spec and no log names it yet: only the build's answer does."""
    shared = world.answer

    def answer(job: Manifest) -> Any:
        """The first commit's environment is shared; all later ones have another."""
        found = shared(job)
        if job["metadata"]["labels"]["slipway.dev/step"] != "build" or world.commit.startswith("4f2a"):
            return found
        return found.model_copy(update={"environment": "sha256:" + "e" * 64})

    world.answer = answer
    key = world.add()
    world.edit(key, "revisionHistoryLimit", 1)
    await world.settle(key)
    environment = world.entries()[0]["data"]["digests"]["environment"]
    other = world.add("other", "railway")
    await world.look(other)
    played(world, "railway")
    await world.look(other)
    assert world.steps(other)["Build"] == "Succeeded"
    assert world.steps(other)["Train"] == "Running"
    asked: set[str] = set()
    for number in range(2, 6):
        world.commit = f"{number:04d}" * 10
        world.edit(key, "source.git.ref", f"v{number}")
        for _ in range(12):
            await world.look(key)
            asked |= {d for j in world.jobs("remove") for d in request_of(j).get("environments", [])}
            played(world, "airline")
            world.cluster.pass_time(1)
    assert world.entries()[0]["data"]["number"] > 1, "its last use here is gone"
    assert environment not in asked
