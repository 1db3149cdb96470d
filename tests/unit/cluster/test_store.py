"""What is remembered: the newer version counts, whichever way it came, and what is gone stays gone."""

from __future__ import annotations

import pytest

from slipway_operator.cluster.store import MOST_GONE, Store
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Ref, ref_of

KEY = Key("airline", "flight-delay")


def thing(version, *, name="flight-delay", kind="Deployment", uid="u1", owner="flight-delay", **more):
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "airline",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"slipway.dev/owner": owner} if owner else {},
            "managedFields": [{"manager": "slipway"}],
        },
        **more,
    }


@pytest.fixture
def store():
    return Store()


def names(store, key=KEY):
    return sorted(m["metadata"]["name"] for m in store.owned(key))


def test_gives_what_was_put_without_what_nobody_looks_at(store):
    assert store.put(thing(5, spec={"replicas": 2}, status={"replicas": 1})) == KEY

    (found,) = store.owned(KEY)
    assert found["metadata"]["resourceVersion"] == "5"
    assert "managedFields" not in found["metadata"]
    assert (found["spec"], found["status"]) == ({"replicas": 2}, {"replicas": 1})


def test_nobody_changes_what_another_look_sees(store):
    store.put(thing(5, spec={"replicas": 2}))
    store.owned(KEY)[0]["spec"]["replicas"] = 9

    assert store.owned(KEY)[0]["spec"]["replicas"] == 2


@pytest.mark.parametrize(("version", "replicas"), [(4, 2), (5, 2), (6, 3)], ids=["late", "repeated", "newer"])
def test_of_two_versions_the_newer_counts(store, version, replicas):
    store.put(thing(5, spec={"replicas": 2}))
    changed = store.put(thing(version, spec={"replicas": 3}))

    assert store.owned(KEY)[0]["spec"]["replicas"] == replicas
    assert changed == (KEY if replicas == 3 else None)


def test_versions_are_numbers_not_texts(store):
    store.put(thing(9, spec={}))
    assert store.put(thing(10, spec={"replicas": 1})) == KEY


def test_a_change_that_no_planner_looks_at_rings_for_nobody_but_its_version_is_kept(store):
    store.put(thing(5, kind="PodDisruptionBudget", status={"currentHealthy": 1}))

    assert store.put(thing(6, kind="PodDisruptionBudget", status={"currentHealthy": 2})) is None
    assert store.owned(KEY)[0]["metadata"]["resourceVersion"] == "6"


def test_a_late_goodbye_does_not_take_what_took_its_place(store):
    store.put(thing(7, uid="u2"))

    assert store.drop(thing(6, uid="u1")) is None
    assert names(store) == ["flight-delay"]
    assert store.drop(thing(8, uid="u2")) == KEY
    assert names(store) == []


def test_what_was_deleted_is_not_brought_back_by_a_late_event(store):
    store.put(thing(5))
    store.deleted(ref_of(thing(5)), "u1")

    assert store.put(thing(6)) is None
    assert names(store) == []
    store.drop(thing(7))
    assert store.put(thing(8, uid="u2")) == KEY


def test_goodbyes_that_never_come_are_not_waited_for_for_ever(store):
    for number in range(MOST_GONE + 10):
        store.deleted(Ref("v1", "Pod", "airline", f"p{number}"), f"u{number}")

    assert len(store._gone) == MOST_GONE


def test_what_a_list_does_not_show_is_gone(store):
    store.put(thing(5, name="a"))
    store.put(thing(6, name="b", uid="u2"))
    before = store.versions("Deployment")

    assert store.sweep(before, {ref_of(thing(6, name="b"))}, newest=9) == [KEY]
    assert names(store) == ["b"]


def test_what_came_while_the_list_was_read_stays(store):
    store.put(thing(5, name="a"))
    before = store.versions("Deployment")
    store.put(thing(10, name="a", spec={"replicas": 1}))
    store.put(thing(11, name="new", uid="u2"))

    assert store.sweep(before, set(), newest=9) == []
    assert names(store) == ["a", "new"]


def test_an_old_list_takes_nothing_that_is_newer(store):
    store.put(thing(50, name="a"))

    assert store.sweep(store.versions("Deployment"), set(), newest=40) == []
    assert names(store) == ["a"]


def test_a_list_of_one_kind_or_owner_says_nothing_of_others(store):
    store.put(thing(5))
    store.put(thing(6, name="s", kind="Service", uid="u2"))
    store.put(thing(7, name="o", owner="other", uid="u3"))

    assert [r.name for r in store.versions("Deployment", key=KEY)] == ["flight-delay"]
    assert [r.name for r in store.versions("Deployment", namespace="airline")] == ["flight-delay", "o"]
    assert store.versions("Deployment", namespace="harbour") == {}


def test_a_new_owner_takes_it_with_it(store):
    store.put(thing(5))

    assert store.put(thing(6, owner="other")) == Key("airline", "other")
    assert names(store) == []
    assert names(store, Key("airline", "other")) == ["flight-delay"]


def test_what_belongs_to_nobody_is_not_kept(store):
    assert store.put(thing(5, owner=None)) is None
    assert len(store) == 0
