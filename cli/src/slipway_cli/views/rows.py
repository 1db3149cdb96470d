"""Rows of tables: deployments of a namespace, and the log of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slipway_cli.views.overview import short_content
from slipway_cli.views.words import age, condition, short, source_words

_WHO_BY = {"FieldManager": "by field manager", "Nobody": "not known"}


def deployment_row(resource: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """One deployment, as ``get`` without a name lists it."""
    meta, status = resource["metadata"], resource.get("status") or {}
    live = status.get("live") or {}
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "ready": condition(resource, "Ready").get("status", "Unknown"),
        "available": condition(resource, "Available").get("status", "Unknown"),
        "revision": live.get("revision"),
        "content": live.get("content"),
        "pods": f"{status.get('readyReplicas', 0)}/{status.get('replicas', 0)}",
        "commit": live.get("commit"),
        "since": live.get("since"),
        "liveFor": age(live.get("since"), now),
        "age": age(meta.get("creationTimestamp"), now),
        "source": source_words(resource.get("spec") or {}),
        "summary": status.get("summary") or "the operator has not looked at it yet",
    }


def deployment_table(
    rows: Sequence[Mapping[str, Any]], *, wide: bool, everywhere: bool
) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the list of deployments."""
    head = ["NAME", "READY", "REVISION", "CONTENT", "PODS", "COMMIT", "LIVE", "SUMMARY"]
    keys = ["name", "ready", "revision", "content", "pods", "commit", "liveFor", "summary"]
    if wide:
        head[-1:-1], keys[-1:-1] = ["AVAILABLE", "AGE", "SOURCE"], ["available", "age", "source"]
    if everywhere:
        head.insert(0, "NAMESPACE")
        keys.insert(0, "namespace")
    return head, [[short(row[key]) if key == "commit" else str(row[key] or "") for key in keys] for row in rows]


def history(resource: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The log, newest entry first, with what became of each content."""
    status = resource.get("status") or {}
    held = {h["content"] for h in status.get("held") or ()}
    standby = (status.get("standby") or {}).get("content")
    undone = {int(entry["undoes"]): int(entry["number"]) for entry in entries if entry.get("undoes")}
    rows = []
    for entry in reversed(entries):
        content, number = short_content(entry), int(entry["number"])
        live = entry is entries[-1]
        marks = ["live"] if live else []
        marks += ["held"] if content in held and not live else []
        marks += ["standby"] if content == standby and not live else []
        standby = None if content == standby else standby
        marks += [f"undone by {undone[number]}"] if number in undone else []
        rows.append(
            {
                "revision": number,
                "content": content,
                "state": ", ".join(marks),
                "cause": _cause(entry),
                "who": entry.get("who", ""),
                "whoBy": entry.get("whoBy", ""),
                "at": entry.get("at"),
                "age": age(entry.get("at"), now),
                "commit": (entry.get("digests") or {}).get("commit"),
                "model": (entry.get("digests") or {}).get("model"),
                "requestId": entry.get("requestId"),
                "why": entry.get("why", ""),
            }
        )
    return rows


def _cause(entry: Mapping[str, Any]) -> str:
    cause = str(entry.get("cause", ""))
    if entry.get("undoes") and entry.get("restores"):
        return f"{cause} {entry['undoes']}→{entry['restores']}"
    return cause


def history_table(rows: Sequence[Mapping[str, Any]], *, wide: bool) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the log."""
    head = ["REVISION", "CONTENT", "STATE", "CAUSE", "WHO", "AGE", "COMMIT", "WHY"]
    if wide:
        head[-1:-1] = ["MODEL", "AT", "WHO-KNOWN", "REQUEST"]
    cells = []
    for row in rows:
        line = [str(row["revision"]), row["content"], row["state"], row["cause"], row["who"], row["age"]]
        line.append(short(row["commit"]))
        if wide:
            known = _WHO_BY.get(row["whoBy"], row["whoBy"])
            line += [short(row["model"]), row["at"] or "", known, row["requestId"] or ""]
        cells.append([*line, row["why"]])
    return head, cells
