"""Where a deployment stands, in one reason and one sentence: what ``Ready`` says."""

from __future__ import annotations

from slipway_operator.api import parse_duration
from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.durations import format_time, parse_time
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.revisions import Cause
from slipway_operator.plan.native import is_native
from slipway_operator.plan.observed import Trouble
from slipway_operator.plan.readiness import Readiness
from slipway_operator.plan.rollout import CanaryState
from slipway_operator.plan.story import Story, Verdict
from slipway_operator.plan.watch import figures_of

_DOING = {"Build": Reason.BUILDING, "Train": Reason.TRAINING, "Export": Reason.EXPORTING}
HOW_TO_GO_ON = (
    "a new commit or another spec goes on by itself; kubectl slipway resume {name} lets this one go live again"
)


def verdict_of(story: Story) -> Verdict:
    """Is something wrong, is something under way, or has all settled: the first answer counts."""
    if story.blocked is not None:
        return _told(story.blocked)
    return (
        _verdict_on_return(story)
        or _verdict_on_hold(story)
        or _verdict_on_way(story)
        or _verdict_on_candidate(story)
        or _verdict_on_live(story)
    )


def _verdict_on_way(story: Story) -> Verdict | None:
    """The way from the source to a content."""
    look, chain = story.look, story.chain
    if look is not None and look.trouble is not None and (look.trouble.stalled or story.commit is None):
        return _told(look.trouble)
    if chain is None:
        return Verdict(Reason.RESOLVING, "asking the repository what the ref names", "Moving")
    stuck = chain.stuck
    if stuck is None:
        return None
    if stuck.trouble is not None:
        return _told(stuck.trouble)
    return Verdict(_DOING[stuck.name], stuck.message or "", "Moving")


def _verdict_on_candidate(story: Story) -> Verdict | None:
    """A new content on its way to traffic."""
    rollout, content, candidate = story.rollout, story.candidate, story.rollout.candidate
    if story.new_entry is not None:
        return Verdict(Reason.GOING_LIVE, f"revision {story.new_entry['number']} is written", "Moving")
    if rollout.probing:
        return Verdict(Reason.PROBING_NODES, "asking the nodes whether they can mount images", "Moving")
    if candidate is None or content is None:
        return None
    if candidate.trouble is not None:
        return _told(candidate.trouble)
    if rollout.paused:
        return Verdict(Reason.PAUSED, f"content {content.short} waits: {_paused_by(story)}", "Moving")
    return _verdict_on_pods(story, content, candidate)


def _verdict_on_pods(story: Story, content: Content, candidate: Readiness) -> Verdict:
    canary = story.rollout.canary
    if canary is not None and canary.since is not None:
        return Verdict(Reason.CANARY, _canary_words(story, canary, content), "Moving")
    words = f"{candidate.ready} of {candidate.size} pods of content {content.short} answer"
    return Verdict(Reason.ROLLING_OUT, words, "Moving")


def _verdict_on_live(story: Story) -> Verdict:
    rollout = story.rollout
    if not story.entries or not rollout.switched:
        return Verdict(Reason.GOING_LIVE, "the Service turns to the new content", "Moving")
    live, entry = rollout.live, story.entries[-1].entry
    if not live.complete:
        return _verdict_on_live_pods(live)
    if story.barred is not None:
        return Verdict(Reason.CANNOT_ROLL_BACK, f"revision {entry.number} stays live: {story.barred}", "Stalled")
    if rollout.routed_in:
        return Verdict(Reason.GOING_LIVE, "the Service is new: the nodes learn to route to it", "Moving")
    how = ", by the model itself" if is_native(entry.digests) else ""
    return Verdict(Reason.SERVING, f"revision {entry.number} answers (content {entry.digests.short}{how})", "Settled")


def _verdict_on_live_pods(live: Readiness) -> Verdict:
    if live.trouble is not None:
        return _told(live.trouble)
    if live.updated < live.size <= live.ready:
        return Verdict(Reason.SCALING, f"{live.updated} of {live.size} pods are replaced by newer ones", "Moving")
    return Verdict(Reason.SCALING, f"{live.ready} of {live.size} pods answer", "Moving")


def _told(trouble: Trouble) -> Verdict:
    return Verdict(trouble.reason, trouble.message, "Stalled" if trouble.stalled else "Moving")


def _verdict_on_return(story: Story) -> Verdict | None:
    """A rollback on its way."""
    back, ready = story.back, story.rollout.returning
    if back is None:
        return None
    number = back.to.number
    if ready is None:
        return Verdict(Reason.ROLLING_BACK, f"to revision {number}: asking the registry whether it is there", "Moving")
    if story.new_entry is not None:
        return Verdict(Reason.ROLLING_BACK, f"revision {story.new_entry['number']} goes back to {number}", "Moving")
    if ready.trouble is not None:
        return _told(ready.trouble)
    return Verdict(Reason.ROLLING_BACK, f"to revision {number}: {ready.ready} of {ready.size} pods answer", "Moving")


def _verdict_on_hold(story: Story) -> Verdict | None:
    """What is wanted is held: a person must decide how to go on."""
    if story.held is None:
        return None
    if not story.rollout.switched:
        return Verdict(Reason.GOING_LIVE, "the Service turns to the content before", "Moving")
    by, short = story.held.by.entry, story.held.hold.content.removeprefix("sha256:")[:10]
    go_on = HOW_TO_GO_ON.format(name=story.seen.key.name)
    if by.cause is Cause.ROLLBACK:
        words = f"{by.undoes}→{by.restores} by {by.who}: {by.why}. Content {short} is held: {go_on}"
        return Verdict(Reason.ROLLED_BACK, words, "Stalled")
    words = f"{short} by {by.who}: {by.why}. It is held: {go_on}"
    return Verdict(Reason.ABORTED, words, "Stalled")


def _paused_by(story: Story) -> str:
    if story.seen.annotations.get(labels.PAUSED) == "true":
        return f"paused by the annotation {labels.PAUSED}; kubectl slipway pause {story.seen.key.name} --off goes on"
    return "paused by spec.rollout.paused"


def _canary_words(story: Story, canary: CanaryState, content: Content) -> str:
    figures = figures_of(story.seen, label=labels.CANARY, value=content.short)
    wish = story.spec.rollout.canary if story.spec is not None else None
    until = ""
    if canary.since is not None and wish is not None:
        ends = parse_time(canary.since).timestamp() + parse_duration(wish.for_)
        until = f" until {format_time(parse_time(canary.since).fromtimestamp(ends, parse_time(canary.since).tzinfo))}"
    share = f"{canary.ready} of {canary.of} pods"
    return f"content {content.short} answers with {share}{until}: {figures.text}"
