"""Numbers of several models in one text: each model's under its own labels, the server's own without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from slipway_runtime.metrics import FAMILIES, Metrics
from slipway_runtime.observing.families import State, added, written
from slipway_runtime.several.endpoint import model_of

_OF_SERVER = frozenset({"slipway_requests_in_flight", "slipway_connections"})
"""What a connection has, whichever model is asked on it."""
_OF_MODELS = frozenset({"slipway_batch_rows", "slipway_run_duration_seconds", "slipway_rows_total"})


def metrics_of(models: Sequence[Metrics]) -> Metrics:
    """Give the numbers of a server of these models; of one its own."""
    return models[0] if len(models) == 1 else SeveralMetrics(models)


class SeveralMetrics(Metrics):
    """What a server of several models counts."""

    def __init__(self, models: Iterable[Metrics]) -> None:
        super().__init__("", "")
        self._models = {one.model: one for one in models}

    def of(self, endpoint: str) -> Metrics:
        """As `Metrics`."""
        return self._models.get(model_of(endpoint), self)

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        """As `Metrics`."""
        one = self.of(endpoint)
        if one is self:
            super().answered(endpoint, code, seconds)
        else:
            one.answered(endpoint, code, seconds)

    def tick(self) -> None:
        """As `Metrics`."""
        for one in self._models.values():
            one.tick()
        super().tick()

    def state(self) -> State:
        """As `Metrics`."""
        state = {family: series for family, series in super().state().items() if family not in _OF_MODELS}
        for one in self._models.values():
            own = one.state()
            _put(state, one.labels, {family: series for family, series in own.items() if family not in _OF_SERVER})
        return state

    def render(self) -> bytes:
        """As `Metrics`."""
        state = added((self.state(), *self.others()), FAMILIES)
        bounds: dict[tuple[str, str], Sequence[str]] = {}
        for one in self._models.values():
            own = {family: dict(_part(series, one.labels)) for family, series in state.items()}
            for (family, labels), found in one.compare(own).items():
                bounds[family, _both(one.labels, labels)] = found
            _put(state, one.labels, own)
        return written(state, FAMILIES, "", bounds)


def _both(common: str, labels: str) -> str:
    return f"{common},{labels}" if labels else common


def _put(state: State, common: str, own: State) -> None:
    for family, series in own.items():
        into = state.setdefault(family, {})
        for labels, numbers in series.items():
            into[_both(common, labels)] = numbers


def _part(series: dict[str, list[float]], common: str) -> Iterator[tuple[str, list[float]]]:
    """Give the series of one model, without its labels: those are written first, and hold no character to escape."""
    for labels, numbers in series.items():
        if labels == common or labels.startswith(f"{common},"):
            yield labels[len(common) + 1 :], numbers
