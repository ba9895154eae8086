"""What a run did, as data: losses, rates, accuracies, weights, timings, versions."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import UnreadableError, as_path, one_line, open_plain, read_archive
from layered_lr.outputs import check_output, open_whole
from layered_lr.plans.frozen_by_hand import describe_frozen_by_hand
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.printed import harmless
from layered_lr.reports.tables import ReportTable
from layered_lr.strict_json import json_text, number_of

NO_GRADIENT = "no gradient"
"""The event of a run in which some group's parameters had no gradient."""

_FORMAT = "layered_lr.Result 3"
_BLOCK_STEPS = 1 << 14
_WEIGHT, _EMA, _NORMS, _PLANNED = "weights/", "ema_weights/", "grad_norms/", "planned_rates/"
_LOGGED = "logged/"


@dataclass(frozen=True, eq=False)
class Result:
    """What a run did.

    Args:
        backend: Its name.
        plan: What was to happen.
        losses: Mean cross-entropy of each batch before its update, shape (steps,), float64.
        rates: Each group's rate at each update, shape (steps,). It is read back from the framework and not copied from
            the plan: from the optimizer's param groups at the moment of the update, or in ``oneflow-graph`` from the
            compiled job (its ``lr_scale``, its schedule and its own step counter).
        accuracies: The fraction of the test images that the model gets right, after each epoch and at the end, shape
            (epochs,).
        weights: Every parameter and buffer by name, after the last update.
        grad_norms: L2 norm of the gradient over all groups at each update, before clipping, shape (steps,); empty
            where the spec has no ``clip_grad_norm``.
        group_grad_norms: Each group's own gradient norm at each update, before clipping, shape (steps,), by group.
        ema_accuracies: The moving average's accuracies, shape (epochs,); empty without ``ema_decay``.
        ema_weights: The moving average of ``weights``; empty without ``ema_decay``.
        lowering: How the backend applied each group's rate, in words.
        seconds_per_step: Mean time of an update in seconds. The first update, which may compile, counts only where it
            is the only one.
        first_step_seconds: Time of the first update in seconds.
        versions: The versions of Python, NumPy, this library and the framework.
        options: The options of the run that can be written down.
        planned_rates: Each group's planned rate at each update, shape (steps,): rollbacks and a plan that is changed
            on resuming alter it. NaN for updates that were made with other groups. Empty means that
            ``plan`` holds throughout.
        events: What happened to the run, in order: skipped and left-out batches, rollbacks, a stop by a callback, a
            group whose parameters had no gradient.
        compile_seconds: Time that compiling the model took in seconds; None where nothing was compiled.
        logged: What callbacks have logged, by name: rows of (updates made, number), shape (n, 2).

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> spec = ll.Spec(ll.SGD(0.1))
        >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> result.losses.shape, result.rates
        ((2,), {'rest': array([0.1, 0.1])})
    """

    backend: str
    plan: Plan
    losses: Float64 = field(repr=False)
    rates: dict[str, Float64] = field(repr=False)
    accuracies: Float64
    weights: dict[str, NDArray[Any]] = field(repr=False)
    lowering: dict[str, str]
    seconds_per_step: float
    first_step_seconds: float
    versions: dict[str, str]
    options: dict[str, Any]
    grad_norms: Float64 = field(repr=False, default_factory=partial(np.empty, 0))
    group_grad_norms: dict[str, Float64] = field(repr=False, default_factory=dict)
    ema_accuracies: Float64 = field(repr=False, default_factory=partial(np.empty, 0))
    ema_weights: dict[str, NDArray[Any]] = field(repr=False, default_factory=dict)
    planned_rates: dict[str, Float64] = field(repr=False, default_factory=dict)
    events: tuple[dict[str, Any], ...] = ()
    compile_seconds: float | None = None
    logged: dict[str, Float64] = field(repr=False, default_factory=dict)

    def largest_rate_differences(self) -> dict[str, float]:
        """For each group, the largest relative difference between a rate that was applied and the planned one."""
        planned = self.planned()
        return {name: _largest_difference(applied, planned[name]) for name, applied in self.rates.items()}

    def planned(self) -> dict[str, Float64]:
        """Each group's rate as it was planned at each update, shape (steps,)."""
        if self.planned_rates:
            return self.planned_rates
        table = self.plan.table(0, len(self.losses))
        return dict(zip((group.name for group in self.plan.groups), table.T, strict=True))

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, whole or not at all; NumPy opens it too.

        Args:
            path: The file; a result that is there already is replaced, and nothing else.

        Raises:
            CheckpointError: The file cannot be written, or something else than a result is there.

        Example:
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> import tempfile
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result.save(f"{folder}/result.npz")
            ...     again = ll.Result.load(f"{folder}/result.npz")
            >>> bool((again.losses == result.losses).all())
            True
        """
        try:
            path = check_output("path", path, is_ours=holds_a_result)
        except SpecError as error:
            raise CheckpointError(f"the result cannot be written: {error}") from None
        about = {
            "format": _FORMAT,
            "backend": self.backend,
            "plan": self.plan.to_dict(),
            "groups": list(self.rates),
            "lowering": self.lowering,
            "seconds_per_step": self.seconds_per_step,
            "first_step_seconds": self.first_step_seconds,
            "compile_seconds": self.compile_seconds,
            "versions": self.versions,
            "options": self.options,
            "events": self.events,
        }
        arrays = {_WEIGHT + name: array for name, array in self.weights.items()}
        arrays |= {_EMA + name: array for name, array in self.ema_weights.items()}
        arrays["grad_norms"] = self.grad_norms
        arrays |= {_PLANNED + name: rates for name, rates in self.planned_rates.items()}
        arrays |= {_NORMS + name: norms for name, norms in self.group_grad_norms.items()}
        arrays |= {_LOGGED + name: rows for name, rows in self.logged.items()}
        arrays["ema_accuracies"] = self.ema_accuracies
        arrays |= {"losses": self.losses, "accuracies": self.accuracies, "about": np.array(json_text(about))}
        arrays["rates"] = np.stack(list(self.rates.values()), axis=1)
        try:
            with open_whole(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise CheckpointError(f"{path}: the result cannot be written: {error.strerror or error}.") from None

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> Result:
        """Read what ``save`` wrote. Nothing is imported or run, whoever wrote it.

        Args:
            path: The file.
            trust: Whether functions that its plan names may be imported, when a rate of ``plan`` is computed.

        Raises:
            CheckpointError: The file is missing, damaged, or no result.

        Example:
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> import tempfile
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result.save(f"{folder}/result.npz")
            ...     again = ll.Result.load(f"{folder}/result.npz")
            >>> bool((again.losses == result.losses).all())
            True
        """
        path = as_path("path", path)
        try:
            arrays = read_archive(path)
            about = json.loads(str(arrays["about"][()]))
            if about["format"] != _FORMAT:
                raise CheckpointError(f"{path}: its format is {about['format']!r}; this version reads {_FORMAT!r}.")
            plan = plan_from_dict(about["plan"], trust=trust)
            if about["groups"] != [group.name for group in plan.groups]:
                raise CheckpointError(f"{path}: its groups are {about['groups']}, its plan's are others.")
            if arrays["rates"].shape != (*arrays["losses"].shape, len(plan.groups)):
                raise CheckpointError(f"{path}: rates {arrays['rates'].shape} for losses {arrays['losses'].shape}.")
            _check_arrays(arrays, len(plan.groups))
            _check_tables(about)
            return cls(
                backend=about["backend"],
                plan=plan,
                losses=arrays["losses"],
                rates=dict(zip(about["groups"], arrays["rates"].T, strict=True)),
                accuracies=arrays["accuracies"],
                grad_norms=arrays["grad_norms"],
                group_grad_norms=_under(_NORMS, arrays),
                ema_accuracies=arrays["ema_accuracies"],
                weights=_under(_WEIGHT, arrays),
                ema_weights=_under(_EMA, arrays),
                lowering=about["lowering"],
                seconds_per_step=float(number_of(about["seconds_per_step"])),
                first_step_seconds=float(number_of(about["first_step_seconds"])),
                versions=about["versions"],
                options=about["options"],
                planned_rates=_under(_PLANNED, arrays),
                events=tuple(about["events"]),
                compile_seconds=about.get("compile_seconds"),
                logged=_under(_LOGGED, arrays),
            )
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file.") from None
        except CheckpointError:
            raise
        except (
            UnreadableError,
            LayeredLRError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise CheckpointError(f"{path}: not a readable result of layered_lr: {one_line(error)}") from None

    def __str__(self) -> str:
        return harmless(result_text(self))


def holds_a_result(path: Path) -> bool:
    """Whether a file is a result that this library has saved, of any version."""
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive, archive.open("about.npy") as about:
            text = about.read(4096).replace(b"\0", b"")  # NumPy keeps text in four bytes a character
        return b'"format": "layered_lr.Result ' in text
    except Exception:  # for a damaged file, zipfile and zlib raise many kinds of errors
        return False


def _check_arrays(arrays: dict[str, NDArray[Any]], groups: int) -> None:
    """Refuse arrays of other kinds or shapes than a run measures.

    Raises:
        ValueError: There are some.
    """
    steps = len(arrays["losses"])
    shapes: dict[str, tuple[int | None, ...]] = {
        "losses": (steps,),
        "rates": (steps, groups),
        "accuracies": (None,),
        "ema_accuracies": (None,),
        "grad_norms": (None,),
    }
    shapes |= {name: (None,) for name in arrays if name.startswith((_NORMS, _PLANNED))}
    shapes |= {name: (None, 2) for name in arrays if name.startswith(_LOGGED)}
    for name, shape in shapes.items():
        array = arrays[name]
        fits = all(want in (None, has) for want, has in zip(shape, array.shape, strict=False))
        if array.dtype.kind not in "fiu" or array.ndim != len(shape) or not fits:
            raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape}")


def _check_tables(about: dict[str, Any]) -> None:
    """Refuse tables of other kinds than a run writes.

    Raises:
        ValueError: There are some.
    """
    kinds: dict[str, type] = {"backend": str, "lowering": dict, "versions": dict, "options": dict, "events": list}
    for name, kind in kinds.items():
        if not isinstance(about[name], kind):
            raise ValueError(f"{name!r} is {about[name]!r:.40}")
    if set(about["lowering"]) != set(about["groups"]) or not all(isinstance(one, dict) for one in about["events"]):
        raise ValueError("what it says of its groups or events is not what a run says")


def _largest_difference(applied: Float64, planned: Float64) -> float:
    """Relative, of those updates whose planned rate is known; in blocks, so that long runs need no memory for it."""
    largest = 0.0
    for start in range(0, len(planned), _BLOCK_STEPS):
        is_rate, due = applied[start : start + _BLOCK_STEPS], planned[start : start + _BLOCK_STEPS]
        relative = np.abs(is_rate - due) / np.where(due == 0, 1.0, np.abs(due))
        largest = float(np.max(relative[~np.isnan(due)], initial=largest))
    return largest


def _under(prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def result_text(result: Result) -> str:
    """Rates planned and applied, accuracy and time per step.

    The table fits the terminal, or ``COLUMNS`` where it is set; elsewhere its lines have at most 160 characters.
    """
    if not len(result.losses):
        return "The run was stopped before its first update."
    planned = result.planned()
    differences = result.largest_rate_differences()
    rows = [
        [name, _span(planned[name]), _span(rates), f"{differences[name]:.1e}", result.lowering[name]]
        for name, rates in result.rates.items()
    ]
    headers = ["group", "rate planned", "rate applied", "largest relative difference", f"on {result.backend}"]
    lines = [ReportTable(headers, rows).text()]
    lines += describe_frozen_by_hand(result.plan.groups, result.plan.parameters)
    lines += [f"group {event['group']!r}: {event['why']}" for event in result.events if event["event"] == NO_GRADIENT]
    if len(result.accuracies):
        lines.append(f"test accuracy {result.accuracies[-1]:.4f} after {len(result.losses)} steps")
    lines.append(f"last loss {result.losses[-1]:.4f}")
    first = f" (the first one {result.first_step_seconds:.2f} s)" if len(result.losses) > 1 else ""
    lines.append(f"{result.seconds_per_step * 1e3:.1f} ms per step{first}")
    if result.compile_seconds is not None:
        lines.append(f"compiling took {result.compile_seconds:.2f} s")
    return "\n".join(lines)


def _span(rates: Any) -> str:
    return f"{rates[0]:.6g} -> {rates[-1]:.6g}"
