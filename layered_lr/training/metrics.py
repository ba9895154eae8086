"""Metrics beside the accuracy: plain functions of all outputs and targets, or objects as torchmetrics has them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from layered_lr.arrays import Array
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.printed import name_of, shown
from layered_lr.training.metric_names import OWN_NAMES

Metric: TypeAlias = Any
"""A function ``(outputs, targets) -> float``, or an object with ``reset``, ``update`` and ``compute``."""

_OF_EVENTS = ("event", "step")  # which each line of a run's events has, beside what was measured


def check_metrics(value: Any) -> dict[str, Metric]:
    """The metrics that were given, by name.

    Args:
        value: A mapping of names, or a list whose names are those of the functions or classes; or a single one.

    Raises:
        SpecError: One is neither a function nor a metric object, or a name is taken, twice there or empty.
    """
    if isinstance(value, Mapping):
        named = list(value.items())
    else:
        given = value if isinstance(value, list | tuple) else [value]
        named = [(name_of(each), each) for each in given]
    found: dict[str, Metric] = {}
    for name, metric in named:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise SpecError(f"metrics: the name {shown(name)} must be a string that is not empty.")
        if name in OWN_NAMES or name.startswith("ema "):
            raise SpecError(f"metrics: {name!r} is measured already; give yours another name.")
        if name in _OF_EVENTS:
            raise SpecError(
                f"metrics: {name!r} is taken: each line of a run's events.jsonl has event and step. Give yours another "
                "name: metrics={'name': metric}."
            )
        if name in found:
            raise SpecError(f"metrics: {name!r} is given twice; give names of your own: metrics={{'name': metric, …}}.")
        if isinstance(metric, type) or not (callable(metric) or _is_object(metric)):
            what = f"the class {metric.__name__}" if isinstance(metric, type) else shown(metric)
            raise SpecError(
                f"metrics: {name!r} is {what}; must be a function (outputs, targets) -> float, or an object of "
                "torchmetrics."
            )
        found[name] = metric
    return found


def list_names(metrics: Iterable[str], has_average: bool) -> list[str]:
    """The names under which a run keeps what its metrics measure.

    Args:
        metrics: Their own names.
        has_average: Whether they are also measured of the moving average.

    Example:
        >>> list_names(["top2"], has_average=True)
        ['top2', 'ema top2']
    """
    own = list(metrics)
    return own + [f"ema {name}" for name in own] * has_average


def _is_object(metric: Any) -> bool:
    return all(callable(getattr(metric, method, None)) for method in ("reset", "update", "compute"))


class MetricSums:
    """Measures some metrics over one evaluation, batch by batch.

    A metric that raises is left out from then on, and ``numbers`` raises what it raised: several processes answer for
    each batch together, so that none may end between two batches.

    Args:
        metrics: By name, as ``check_metrics`` gives them.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._objects = {name: metric for name, metric in metrics.items() if _is_object(metric)}
        self._functions = {name: metric for name, metric in metrics.items() if name not in self._objects}
        self._order = list(metrics)
        self._outputs: list[Array] = []
        self._targets: list[Array] = []
        self._failed: dict[str, LayeredLRError] = {}
        for name, metric in self._objects.items():
            self._try(name, metric.reset)

    def add(self, outputs: Array, targets: Array) -> None:
        """Add a batch.

        Args:
            outputs: Of the model, shape (N, classes).
            targets: Shape (N,).
        """
        if self._functions:
            self._outputs.append(outputs.copy())
            self._targets.append(targets)
        for name, metric in self._objects.items():
            torch = sys.modules.get("torch")  # which torchmetrics has imported
            given: tuple[Any, Any] = (outputs, targets)
            if torch is not None:
                device = getattr(metric, "device", "cpu")
                given = (torch.tensor(outputs, device=device), torch.tensor(targets, device=device))
            self._try(name, metric.update, *given)

    def numbers(self) -> dict[str, float]:
        """The metrics of all batches, by name.

        Raises:
            SpecError: A metric raised, or is not a single number.
        """
        for error in self._failed.values():
            raise error
        found = {name: _number(name, _call(name, metric.compute)) for name, metric in self._objects.items()}
        if self._functions:
            whole = np.concatenate(self._outputs), np.concatenate(self._targets)
            for name, metric in self._functions.items():
                found[name] = _number(name, _call(name, metric, *whole))
        return {name: found[name] for name in self._order}

    def _try(self, name: str, function: Callable[..., Any], *given: Any) -> None:
        if name in self._failed:
            return
        try:
            _call(name, function, *given)
        except LayeredLRError as error:
            self._failed[name] = error


def _call(name: str, function: Callable[..., Any], *given: Any) -> Any:
    try:
        return function(*given)
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's function raises
        what = "" if not given else f" of outputs {given[0].shape} and targets {given[1].shape}"
        raise SpecError(f"metrics: {name!r}{what} raised {describe_error(error)}") from error


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes | complex) or np.ndim(value.item() if hasattr(value, "item") else value):
            raise TypeError
        return float(value)
    except OverflowError:
        raise SpecError(
            f"metrics: {name!r} gives a number that is too large for a float. Give a smaller one."
        ) from None
    except (TypeError, ValueError, RuntimeError):
        raise SpecError(
            f"metrics: {name!r} gives {shown(value)} ({type(value).__name__}); must be a single number."
        ) from None
