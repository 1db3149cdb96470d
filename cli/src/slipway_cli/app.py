"""The table of commands: what each is for, examples, and where it is; imported only when it is called."""

from __future__ import annotations

import cyclopts

LOOK = cyclopts.Group("Look", sort_key=1)
ACT = cyclopts.Group("Act", sort_key=2)
PROJECT = cyclopts.Group("Projects", sort_key=3)
HELP = cyclopts.Group("Help", sort_key=4)

_COMMANDS: tuple[tuple[str, cyclopts.Group, str, tuple[str, ...]], ...] = (
    (
        "show:get",
        LOOK,
        "Show deployments, their contents and pods; live with -w.",
        ("get", "get flight-delay -n airline", "get flight-delay -w", "get flight-delay -o yaml"),
    ),
    (
        "status:status",
        LOOK,
        "Say where a deployment stands, by exit code too; --wait until it has settled.",
        ("status flight-delay", "status flight-delay --wait --timeout 15m && ./smoke-test"),
    ),
    (
        "history:history",
        LOOK,
        "List the log: which content was live when, who put it there and why.",
        ("history flight-delay", "history flight-delay -o wide"),
    ),
    (
        "compare:diff",
        LOOK,
        "Compare two revisions: spec, code, data, packages, features, schema, metrics.",
        ("diff flight-delay 3 5", "diff flight-delay previous live --only packages,metrics"),
    ),
    (
        "logs:logs",
        LOOK,
        "Print the log of a step (build, train, export, …) or of the pods that answer.",
        ("logs flight-delay", "logs flight-delay train", "logs flight-delay build -c fetch", "logs flight-delay -f"),
    ),
    (
        "requests:rollback",
        ACT,
        "Go back to what was live before, or to a revision: model, code, packages, data and schema together.",
        ("rollback flight-delay --why 'delays of zero'", "rollback flight-delay 3", "rollback flight-delay --no-wait"),
    ),
    (
        "requests:resume",
        ACT,
        "Go on with what is paused, and release what is held after a rollback or an abort.",
        ("resume flight-delay --why 'the feed is repaired'",),
    ),
    (
        "requests:promote",
        ACT,
        "End the canary now: the new content goes live.",
        ("promote flight-delay", "promote flight-delay --content 3b1f09c2aa"),
    ),
    (
        "requests:pause",
        ACT,
        "Let nothing further go live until somebody resumes.",
        ("pause flight-delay", "pause flight-delay --off"),
    ),
    (
        "requests:abort",
        ACT,
        "Give the new content up: what is live stays, and the new one is held.",
        ("abort flight-delay --why 'twice the latency'",),
    ),
    (
        "deploy:deploy",
        PROJECT,
        "Package a folder, push it, apply its ModelDeployment and follow until it answers.",
        ("deploy .", "deploy examples/flight-delay -n airline --push registry.example.com/airline/flight-delay"),
    ),
    (
        "package:package",
        PROJECT,
        "Package a project with the bytes that a build in the cluster makes of the same commit.",
        ("package examples/flight-delay -o flight-delay.zip", "package . --push registry.example.com/airline/delay"),
    ),
    (
        "pull:pull",
        PROJECT,
        "Bring the model, the package, the training or the certificate of a revision to disk, checked by digest.",
        ("pull flight-delay model", "pull flight-delay package --revision 3 --to ./revision-3"),
    ),
    (
        "env:env",
        PROJECT,
        "Make the environment of a revision on this machine, from the same locked packages.",
        ("env flight-delay", "env flight-delay --revision 3 --to ./revision-3 --code"),
    ),
    (
        "doctor:doctor",
        HELP,
        "Find what is wrong with an installation or a deployment, and say what to do.",
        ("doctor", "doctor flight-delay -n airline"),
    ),
    (
        "report:report",
        HELP,
        "Write a support bundle: objects, events and logs, without secrets.",
        ("report", "report flight-delay -n airline --to incident-42.zip"),
    ),
)


def _version() -> str:
    from importlib.metadata import version

    return version("slipway-cli")


app = cyclopts.App(
    name="kubectl slipway",
    help="See what answers, change it, take it back; and bring projects to production.",
    help_format="plaintext",
    help_epilogue="Each command has examples: kubectl slipway rollback --help. Exit codes: docs/cli.md.",
    version=_version,
)
SUMMARIES = {path.rpartition(":")[2]: summary for path, _, summary, _ in _COMMANDS}
"""What each command is for, without importing it."""

for _path, _group, _help, _examples in _COMMANDS:
    app.command(
        f"slipway_cli.commands.{_path}",
        group=_group,
        help=_help,
        help_epilogue="Examples:\n" + "\n".join(f"  kubectl slipway {example}" for example in _examples),
    )
