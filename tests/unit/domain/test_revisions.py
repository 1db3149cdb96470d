"""The log: entries follow from each other, and what was changed shows."""

from __future__ import annotations

import copy

import pytest

from slipway_operator.domain.contents import Content
from slipway_operator.domain.revisions import Cause, Entry, entry_manifest, read_log

OWNER = {"uid": "u"}


def content(word):
    fields = {name: f"{name}-{word}" for name in Content.model_fields if name not in {"serving", "trained", "engine"}}
    return Content(**fields)


def make(count):
    manifests = []
    previous = None
    for number in range(1, count + 1):
        made = content(number)
        entry = Entry(
            number=number,
            previous=previous,
            cause=Cause.SPEC_CHANGE,
            who="w",
            who_by="FieldManager",
            why="y",
            at="2026-11-23T12:00:00Z",
            content=made.digest,
            digests=made,
            spec={"source": {}},
        )
        manifests.append(entry_manifest(entry, owner_name="x", namespace="n", owner_reference=OWNER))
        previous = read_log(manifests)[0][-1].digest
    return manifests


def test_a_good_log_has_no_fault_in_any_order():
    entries, faults = read_log(list(reversed(make(4))))

    assert [e.number for e in entries] == [1, 2, 3, 4]
    assert faults == ()


def test_the_oldest_may_be_pruned():
    assert read_log(make(4)[2:])[1] == ()


def edited(change):
    manifests = copy.deepcopy(make(3))
    change(manifests)
    return read_log(manifests)[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[1]["data"].update(why="another"), "x-2 was changed"),
        (lambda m: m.pop(1), "between x-1 and x-3 are missing"),
        (lambda m: m[1]["data"].update(number=7), "says that it is number 7"),
        (lambda m: m[1]["data"].pop("content"), "cannot be read"),
        (lambda m: m[1]["data"]["digests"].update(onnx="other"), "names a content that its digests do not make"),
        (lambda m: m[2]["data"].update(unknown="field"), None),
    ],
)
def test_what_was_changed_shows(change, words):
    faults = edited(change)

    assert any(words in f for f in faults) if words else faults == ()


def test_labels_and_revision_do_not_count():
    manifests = make(2)
    manifests[0]["revision"] = 99
    manifests[0]["metadata"]["labels"] = {"slipway.dev/content": "forged"}

    assert read_log(manifests)[1] == ()


def test_a_content_is_named_by_all_its_digests():
    one = content("a")
    for name in Content.model_fields:
        other = one.model_copy(update={name: {"x": 1} if name == "serving" else "other"})
        assert other.digest != one.digest, name
