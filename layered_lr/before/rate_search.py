"""What a search for a rate found: the curve, and the rates that it suggests, each with a spec to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.before.curve import falls_clearly, find_suggestions, lowest_of, reacts, scatter_of, smooth
from layered_lr.before.rate_suggestion import RateSuggestion
from layered_lr.before.scaled_specs import scale_searched
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import as_path, begins_with, one_line, read_plain
from layered_lr.outputs import check_output, check_page, write_whole
from layered_lr.printed import harmless, shown
from layered_lr.scalars import read_number
from layered_lr.spec.spec import Spec
from layered_lr.strict_json import json_text
from layered_lr.yes_or_no import check_yes_or_no

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMAT = "layered_lr.RateSearch 1"
_BEGINNING = b'{\n "format": "layered_lr.RateSearch '
_MOST_FILE_BYTES = 1 << 28
_FEWEST = 3  # losses of a curve
ORDER = ("valley", "steepest", "tenth")
"""The suggestions, the one that ``RateSearch.suggestion`` prefers first."""


@dataclass(frozen=True, eq=False)
class RateSearch:
    """What ``find_lr`` found: the loss at each rate, and the rates that the curve suggests.

    Args:
        backend: What trained, such as ``torch-eager``; ``own loop`` for a model and batches of the user.
        spec: The spec that was searched with.
        group: The group whose rate was searched for; None is all groups, their ratios kept.
        base: The rate that the spec has itself: at ``lr == base`` each group has its own rate.
        scales: How many times ``lr`` each group's rate is, by the group's name.
        fixed: The rates of those groups that stayed as they are; empty unless one group was searched for.
        lr: The rates that were tried, ascending, shape (n,).
        losses: The loss of each update at the rate beside it, shape (seeds, n); NaN behind the end of a seed's sweep.
        rates: Each group's rate at each update, read back from the framework, shape (n,), by the group's name.
        seeds: Of each sweep.
        smoothing: How much of the running mean of losses stays at each update.
        stop_factor: A sweep stops where the smoothed loss is more than so many times its lowest one.
        stopped: Why each seed's sweep ended before the last rate; empty where it did not.
        options: The options of the run that can be written down.
        versions: Of Python, NumPy, this library and the framework.
        phase: The phase of the spec that was searched in, from 1.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
        >>> spec = ll.Spec(ll.SGD(0.1))
        >>> search = ll.find_lr(spec, build, start=1e-4, end=10, steps=60, progress=False)
        >>> search.losses.shape == (1, len(search.lr)) and search.suggestion.spec.optimizer.lr == search.suggestion.lr
        True
    """

    backend: str
    spec: Spec = field(repr=False)
    group: str | None
    base: float
    scales: Mapping[str, float]
    fixed: Mapping[str, float]
    lr: Float64 = field(repr=False)
    losses: Float64 = field(repr=False)
    rates: Mapping[str, Float64] = field(repr=False)
    seeds: tuple[int, ...]
    smoothing: float
    stop_factor: float
    stopped: tuple[str, ...]
    options: Mapping[str, Any] = field(repr=False, default_factory=dict)
    versions: Mapping[str, str] = field(repr=False, default_factory=dict)
    phase: int = 1

    @cached_property
    def smoothed(self) -> Float64:
        """The smoothed losses of each seed, shape (seeds, n); NaN where there is no loss."""
        return np.array([smooth(losses, self.smoothing) for losses in self.losses])

    @cached_property
    def mean(self) -> Float64:
        """The mean of the seeds' smoothed losses, over those rates that every seed has tried, shape (m,)."""
        both = np.isfinite(self.smoothed).all(axis=0)
        return self.smoothed[:, both].mean(axis=0)  # type: ignore[no-any-return]

    @cached_property
    def band(self) -> tuple[Float64, Float64]:
        """The lowest and the highest of the seeds' smoothed losses at each rate of ``mean``, shape (m,) each."""
        part = self.smoothed[:, : len(self.mean)]
        return part.min(axis=0, initial=np.inf), part.max(axis=0, initial=-np.inf)

    @cached_property
    def _scatter(self) -> Float64 | None:
        """How far the scatter between batches alone may move ``mean``, shape (m,); None where there are too few."""
        count = len(self.mean)
        if count < _FEWEST:
            return None
        lowest = lowest_of(self.mean)
        each = [scatter_of(losses[:count], self.smoothing, lowest) for losses in self.losses]
        return np.sqrt(np.square(each).sum(axis=0)) / len(each)  # type: ignore[no-any-return]

    @property
    def _reacts(self) -> bool:
        """Whether the loss changes by more than from one batch to the next."""
        return self._scatter is None or any(self.stopped) or reacts(self.mean, self._scatter)

    def _find_suggestions(self) -> list[tuple[str, int, float]]:
        return list(find_suggestions(self.lr[: len(self.mean)], self.mean)) if self._reacts else []

    @cached_property
    def suggestions(self) -> Mapping[str, RateSuggestion]:
        """The rates that the curve suggests, by name: ``valley``, ``steepest`` and ``tenth``; empty where none is.

        Raises:
            SpecError: The spec computes a rate by a function, so that no spec at another rate can be made.
        """
        found = {
            name: RateSuggestion(name, lr, step, self.rates_at(lr), self.spec_at(lr))
            for name, step, lr in self._find_suggestions()
        }
        return {name: found[name] for name in ORDER if name in found}

    @property
    def suggestion(self) -> RateSuggestion:
        """The first of the suggestions: the valley.

        Raises:
            SpecError: The curve suggests none, because the loss never falls, or does not react to the rates.
        """
        for found in self.suggestions.values():
            return found
        raise SpecError(f"the search suggests no rate: {' '.join(self.notes)}")

    def rates_at(self, lr: float) -> dict[str, float]:
        """Return each group's rate where the rate that was searched for is ``lr``, by the group's name.

        Args:
            lr: The rate, > 0.

        Raises:
            SpecError: It is no such number.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)])
            >>> sweep = {"lr": np.array([0.1]), "losses": np.ones((1, 1)), "rates": {}, "seeds": (0,), "stopped": ("",)}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}}
            >>> ll.RateSearch("torch-eager", spec, scales={"body": 0.5, "rest": 1.0}, **about, **sweep).rates_at(0.4)
            {'body': 0.2, 'rest': 0.4}
        """
        rate = _check_rate("rates_at", lr)
        return {**{name: scale * rate for name, scale in self.scales.items()}, **self.fixed}

    def spec_at(self, lr: float) -> Spec:
        """Return the spec at another rate: every rate in it in proportion, or only those of the group searched for.

        Phases with another optimizer than the one that was searched with keep their rates.

        Args:
            lr: The rate, > 0.

        Raises:
            SpecError: The spec computes a rate by a function, or ``lr`` is no such number.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr=0.05)])
            >>> sweep = {"lr": np.array([0.1]), "losses": np.ones((1, 1)), "rates": {}, "seeds": (0,), "stopped": ("",)}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}}
            >>> search = ll.RateSearch("torch-eager", spec, scales={"body": 0.5, "rest": 1.0}, **about, **sweep)
            >>> search.spec_at(0.4).optimizer.lr, search.spec_at(0.4).groups[0].lr
            (0.4, 0.2)
        """
        return scale_searched(self.spec, self.phase, self.group, _check_rate("spec_at", lr) / self.base)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about the curve, each in a sentence."""
        said = []
        count = len(self.mean)
        if count < len(self.lr):
            said.append(f"Only the first {count} rates were tried with every seed.")
        if self._scatter is None:
            said.append(f"The sweep has only {count} finite losses: start lower, with start=....")
        elif not self._reacts:
            said.append(
                "The loss does not react to these rates: it changes by no more than from one batch to the next. End "
                "higher, with end=..., and see that the loss depends on what trains."
            )
        elif not self._find_suggestions():
            said.append("The loss never falls: start lower, with start=..., or take more steps or larger batches.")
        elif not falls_clearly(self.mean, self._scatter):
            said.append(
                "The loss falls by no more than it changes from one batch to the next, so the suggestions are guesses: "
                "take more steps or larger batches."
            )
        elif int(np.argmin(self.mean)) == count - 1:
            said.append("The loss still falls at the last rate: end higher, with end=....")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain tables, lists, strings and numbers; ``from_dict`` makes an equal search of it.

        Raises:
            SpecError: The spec holds a function that has no import path.
        """
        return {
            "format": _FORMAT,
            "backend": self.backend,
            "spec": self.spec.to_dict(),
            "group": self.group,
            "base": self.base,
            "scales": dict(self.scales),
            "fixed": dict(self.fixed),
            "lr": self.lr.tolist(),
            "losses": [[loss if np.isfinite(loss) else None for loss in row] for row in self.losses.tolist()],
            "rates": {name: rates.tolist() for name, rates in self.rates.items()},
            "seeds": list(self.seeds),
            "phase": self.phase,
            "smoothing": self.smoothing,
            "stop_factor": self.stop_factor,
            "stopped": list(self.stopped),
            "options": dict(self.options),
            "versions": dict(self.versions),
            "suggestions": {
                name: {"lr": found.lr, "step": found.step, "rates": dict(found.rates)}
                for name, found in self.suggestions.items()
            },
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, trust: bool = False) -> RateSearch:
        """Make a search from the result of ``to_dict``.

        Args:
            table: The result of ``to_dict``, also if it was saved as JSON and read again.
            trust: Whether functions that its spec names may be imported, when a rate is computed.

        Raises:
            SpecError: It is no such table.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> sweep = {"lr": np.array([0.1]), "losses": np.ones((1, 1)), "rates": {"rest": np.array([0.1])}}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}, "seeds": (0,)}
            >>> search = ll.RateSearch("torch-eager", spec, scales={"rest": 1.0}, stopped=("",), **about, **sweep)
            >>> ll.RateSearch.from_dict(search.to_dict()).to_dict() == search.to_dict()
            True
        """
        check_yes_or_no("RateSearch.from_dict", "trust", trust)
        if not isinstance(table, Mapping) or table.get("format") != _FORMAT:
            raise SpecError(f"RateSearch.from_dict: this is no table of RateSearch.to_dict ({_FORMAT!r}).")
        try:
            lr, losses = _numbers(table["lr"], 1), _numbers(table["losses"], 2)
            rates = {str(name): _numbers(row, 1) for name, row in table["rates"].items()}
            seeds, stopped = tuple(map(int, table["seeds"])), tuple(map(str, table["stopped"]))
            if losses.shape != (len(seeds), len(lr)) or len(stopped) != len(seeds):
                raise ValueError(f"losses of shape {losses.shape} for {len(seeds)} seeds and {len(lr)} rates")
            if not (lr > 0).all() or any(len(row) != len(lr) for row in rates.values()):
                raise ValueError("its rates are not those of a search")
            spec = Spec.from_dict(table["spec"], trust=trust)
            smoothing, stop_factor = float(table["smoothing"]), float(table["stop_factor"])
            if not (0 <= smoothing < 1 and stop_factor > 1):
                raise ValueError(f"smoothing={smoothing}, stop_factor={stop_factor}: no search has these")
            phase = int(table.get("phase", 1))
            if not 1 <= phase <= max(len(spec.phases), 1):
                raise ValueError(f"phase {phase} of {len(spec.phases)}")
            return cls(
                backend=str(table["backend"]),
                spec=spec,
                group=None if table["group"] is None else str(table["group"]),
                base=_positive(table["base"]),
                scales={str(name): float(scale) for name, scale in table["scales"].items()},
                fixed={str(name): float(rate) for name, rate in table["fixed"].items()},
                lr=lr,
                losses=losses,
                rates=rates,
                seeds=seeds,
                smoothing=smoothing,
                stop_factor=stop_factor,
                stopped=stopped,
                options=dict(table["options"]),
                versions=dict(table["versions"]),
                phase=phase,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, LayeredLRError) as error:
            raise SpecError(f"RateSearch.from_dict: not a readable search: {one_line(error)}") from None

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.json`` file, whole or not at all.

        Args:
            path: The file; a search that is there already is replaced, and nothing else.

        Raises:
            SpecError: The path is not possible, or the spec holds a function that has no import path.
            LayeredLRError: The file cannot be written.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> sweep = {"lr": np.array([0.1]), "losses": np.ones((1, 1)), "rates": {}, "seeds": (0,), "stopped": ("",)}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}}
            >>> search = ll.RateSearch("torch-eager", ll.Spec(ll.SGD(0.1)), scales={"rest": 1.0}, **about, **sweep)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     search.save(f"{folder}/search.json")
            ...     ll.RateSearch.load(f"{folder}/search.json").base
            0.1
        """
        text = json_text(self.to_dict(), indent=1)
        place = check_output("path", path, (".json",), is_ours=lambda file: begins_with(file, _BEGINNING))
        write_whole(place, [text.encode()])

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> RateSearch:
        """Read what ``save`` wrote. Nothing is imported or run, whoever wrote it.

        Args:
            path: The file.
            trust: As in ``from_dict``.

        Raises:
            CheckpointError: The file is missing, damaged, or no search.

        Example:
            >>> import layered_lr as ll
            >>> ll.RateSearch.load("missing.json")
            Traceback (most recent call last):
            layered_lr.errors.CheckpointError: missing.json: no such file.
        """
        check_yes_or_no("RateSearch.load", "trust", trust)
        file = as_path("path", path)
        try:
            table = json.loads(read_plain(file, _MOST_FILE_BYTES))
            return cls.from_dict(table, trust=trust)
        except FileNotFoundError:
            raise CheckpointError(f"{file}: no such file.") from None
        except (LayeredLRError, OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{file}: not a readable search of layered_lr: {one_line(error)}") from None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve on a log axis, the suggestions marked; needs matplotlib (``pip install 'layered-lr[plot]'``).

        Args:
            ax: Where to draw; None makes a figure of its own, which pyplot does not know. Below its axis of ``lr``
                stands the scale of each group, up to six, with the group's rate at the same place.

        Returns:
            The axes.

        Raises:
            LayeredLRError: matplotlib is not installed.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> lr = np.geomspace(0.001, 1, 40)
            >>> sweep = {"lr": lr, "losses": np.log(lr)[None] ** 2, "rates": {}, "seeds": (0,), "stopped": ("",)}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}}
            >>> search = ll.RateSearch("torch-eager", ll.Spec(ll.SGD(0.1)), scales={"rest": 1.0}, **about, **sweep)
            >>> search.plot().get_xscale()
            'log'
        """
        from layered_lr.before.search_picture import plot

        return plot(self, ax)

    def to_html(self, path: str | Path | None = None) -> str:
        """The search as one HTML file that refers to nothing outside it: the picture, and the suggestions below it.

        Args:
            path: File to write it to, whole or not at all; None only returns it.

        Raises:
            SpecError: A path that cannot be.
            LayeredLRError: matplotlib is not installed, or the file cannot be written.

        Example:
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> lr = np.geomspace(0.001, 1, 40)
            >>> sweep = {"lr": lr, "losses": np.log(lr)[None] ** 2, "rates": {}, "seeds": (0,), "stopped": ("",)}
            >>> about = {"smoothing": 0.9, "stop_factor": 4.0, "group": None, "base": 0.1, "fixed": {}}
            >>> search = ll.RateSearch("torch-eager", ll.Spec(ll.SGD(0.1)), scales={"rest": 1.0}, **about, **sweep)
            >>> "<svg" in search.to_html()
            True
        """
        from layered_lr.before.search_report import html_text

        text = html_text(self)
        if path is not None:
            write_whole(check_page("path", path), [text.encode()])
        return text

    def __str__(self) -> str:
        from layered_lr.before.search_report import search_text

        return harmless(search_text(self))


def _numbers(values: Any, axes: int) -> Float64:
    found = np.array(values, dtype=np.float64)
    if found.ndim != axes:
        raise ValueError(f"numbers of shape {found.shape}")
    return found


def _check_rate(method: str, lr: Any) -> float:
    number = read_number(lr)
    if number is None or not 0 < number < np.inf:
        raise SpecError(f"RateSearch.{method}: lr={shown(lr)}: must be a finite number > 0.")
    return number


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < np.inf:
        raise ValueError(f"base {number}: must be > 0")
    return number
