"""The termination message: what a container says to the operator, within its bytes."""

from __future__ import annotations

from pathlib import Path

from slipway_operator.domain.requests import TERMINATION_MESSAGE_LIMIT, Exported, Failed, Message, Trained, Verified

_CUT = "…"


def text_of(answer: Message) -> bytes:
    """An answer as JSON of less than the limit's bytes, shortened where a person wrote it."""
    text = _json(answer)
    while len(text) >= TERMINATION_MESSAGE_LIMIT:
        over = len(text) - TERMINATION_MESSAGE_LIMIT + 1
        if isinstance(answer, Failed):
            answer = answer.model_copy(update={"message": _shortened(answer.message, over)})
        elif isinstance(answer, Verified) and answer.schema_difference:
            shorter = _shortened(answer.schema_difference, over)
            answer = answer.model_copy(update={"schema_difference": shorter})
        elif isinstance(answer, Exported) and answer.why:
            answer = answer.model_copy(update={"why": _shortened(answer.why, over)})
        elif isinstance(answer, Trained) and answer.metrics:
            answer = answer.model_copy(update={"metrics": dict(list(answer.metrics.items())[:-1])})
        else:
            raise ValueError(f"an answer of {len(text)} bytes is too long for a termination message")
        text = _json(answer)
    return text


def write_answer(target: Path, answer: Message) -> None:
    """Write an answer where the kubelet reads it."""
    target.write_bytes(text_of(answer))


def _json(answer: Message) -> bytes:
    return answer.model_dump_json(by_alias=True).encode()


def _shortened(message: str, over: int) -> str:
    """Cut the middle: the beginning says what, the end says what to change."""
    keep = max(0, len(message) - over - len(_CUT.encode()))
    if keep == 0:
        return ""
    head = keep // 2
    return message[:head] + _CUT + message[len(message) - (keep - head) :]
