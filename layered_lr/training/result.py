"""What a run did, as data: losses, rates, accuracies, weights, timings, versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.data import DataSource
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import UnreadableError, as_path, one_line, read_archive
from layered_lr.outputs import check_output, open_whole
from layered_lr.plans.frozen_by_hand import describe_frozen_by_hand
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.printed import harmless, shown
from layered_lr.reports.tables import ReportTable
from layered_lr.strict_json import json_text, number_of
from layered_lr.training.in_file import marked
from layered_lr.training.loss_function import LossFunction
from layered_lr.training.metric_names import TEST_LOSS
from layered_lr.training.result_files import (
    EMA,
    FORMAT,
    LOGGED,
    NORMS,
    PLANNED,
    UNSAVED,
    WEIGHT,
    arrays_under,
    check_arrays,
    check_tables,
    holds_a_result,
)
from layered_lr.training.trained.assessment import Evaluation, evaluate
from layered_lr.training.trained.best_epoch import ACCURACY, measured_after, step_of_weights
from layered_lr.training.trained.card import card_text, write_card
from layered_lr.training.trained.exporting import Export, export
from layered_lr.training.trained.from_folder import read_run_folder
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.predictions import Predictions, predict
from layered_lr.yes_or_no import check_yes_or_no

NO_GRADIENT = "no gradient"
"""The event of a run in which some group's parameters had no gradient."""

_BLOCK_STEPS = 1 << 14


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
        weights: Every parameter and buffer by name, after the last update; where an early stop has brought back those
            of the best epoch, these, and the event ``restored`` says after how many updates (``best_step``).
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
        logged: What ``metrics`` and callbacks have measured, by name: rows of (updates made, number), shape (n, 2).
            ``"test loss"`` is the run's loss on the test set after each epoch, where the targets are no class numbers.
        unsaved: The buffers that ``state_dict()`` leaves out (``persistent=False``), by name.
        model_input: What images the model takes, and what its classes are called; None in files of older versions.
        make_model: The callable that built the model, in the process that trained it; no file holds it.
        loss_function: The user's own loss, in the process that trained with it; no file holds it.
        metrics: The functions that the run has measured with, by name, in the process that trained; no file holds them.

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
    unsaved: dict[str, NDArray[Any]] = field(repr=False, default_factory=dict)
    model_input: ModelInput | None = field(repr=False, default=None)
    make_model: Callable[[], Any] | None = field(repr=False, default=None)
    loss_function: LossFunction | None = field(repr=False, default=None)
    metrics: Mapping[str, Any] = field(repr=False, default_factory=dict)

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
            "format": FORMAT,
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
            "input": None if self.model_input is None else self.model_input.to_dict(),
        }
        arrays = {WEIGHT + name: array for name, array in self.weights.items()}
        arrays |= {EMA + name: array for name, array in self.ema_weights.items()}
        arrays["grad_norms"] = self.grad_norms
        arrays |= {PLANNED + name: rates for name, rates in self.planned_rates.items()}
        arrays |= {NORMS + name: norms for name, norms in self.group_grad_norms.items()}
        arrays |= {LOGGED + name: rows for name, rows in self.logged.items()}
        arrays |= {UNSAVED + name: array for name, array in self.unsaved.items()}
        arrays["ema_accuracies"] = self.ema_accuracies
        arrays |= {"losses": self.losses, "accuracies": self.accuracies, "about": np.array(json_text(about))}
        arrays["rates"] = np.stack(list(self.rates.values()), axis=1)
        try:
            with open_whole(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise CheckpointError(f"{path}: the result cannot be written: {error.strerror or error}.") from None

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False, checkpoint: str | int = "last") -> Result:
        """Read what ``save`` wrote, or what a run has come to from its folder. Nothing is imported or run.

        Args:
            path: The file, or the folder of a run (its ``checkpoints=...``), also of one that was stopped or goes on.
            trust: Whether code that it names may be imported: functions of its plan, when a rate of ``plan`` is
                computed, and the callable that builds its model, when the model is needed.
            checkpoint: Of a folder: ``"last"``, ``"best"`` (the one with the highest accuracy), or a number of updates.
                The times of updates are NaN there.

        Raises:
            CheckpointError: It is missing, damaged, no result, or a folder without such a checkpoint.
            SpecError: ``checkpoint`` is none of these, or ``trust`` is neither true nor false.

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
        check_yes_or_no("Result.load", "trust", trust)
        path = as_path("path", path)
        if path.is_dir():
            return cls(**read_run_folder(path, checkpoint, trust=trust))
        if checkpoint != "last":
            raise SpecError(f"checkpoint={shown(checkpoint)}: is for the folder of a run; {path} is no folder.")
        try:
            arrays = read_archive(path)
            about = json.loads(str(arrays["about"][()]))
            if about["format"] != FORMAT:
                raise CheckpointError(f"{path}: its format is {about['format']!r}; this version reads {FORMAT!r}.")
            plan = plan_from_dict(about["plan"], trust=trust)
            if about["groups"] != [group.name for group in plan.groups]:
                raise CheckpointError(f"{path}: its groups are {about['groups']}, its plan's are others.")
            if arrays["rates"].shape != (*arrays["losses"].shape, len(plan.groups)):
                raise CheckpointError(f"{path}: rates {arrays['rates'].shape} for losses {arrays['losses'].shape}.")
            check_arrays(arrays, len(plan.groups))
            check_tables(about)
            return cls(
                backend=about["backend"],
                plan=plan,
                losses=arrays["losses"],
                rates=dict(zip(about["groups"], arrays["rates"].T, strict=True)),
                accuracies=arrays["accuracies"],
                grad_norms=arrays["grad_norms"],
                group_grad_norms=arrays_under(NORMS, arrays),
                ema_accuracies=arrays["ema_accuracies"],
                weights=arrays_under(WEIGHT, arrays),
                ema_weights=arrays_under(EMA, arrays),
                lowering=about["lowering"],
                seconds_per_step=float(number_of(about["seconds_per_step"])),
                first_step_seconds=float(number_of(about["first_step_seconds"])),
                versions=about["versions"],
                options=about["options"] if trust else marked(about["options"]),
                planned_rates=arrays_under(PLANNED, arrays),
                events=tuple(about["events"]),
                compile_seconds=about.get("compile_seconds"),
                logged=arrays_under(LOGGED, arrays),
                unsaved=arrays_under(UNSAVED, arrays),
                model_input=None if about.get("input") is None else ModelInput.from_dict(about["input"]),
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

    def predict(
        self,
        images: Any,
        *,
        top_k: int = 1,
        batch_size: int = 64,
        backend: str | None = None,
        weights: Literal["average", "last"] | None = None,
        resize: bool | None = None,
        model: str | Callable[[], Any] | None = None,
        device: str = "auto",
    ) -> Predictions:
        """Answer to images with the run's model, normalised and resized as in the run.

        A run on class numbers gives classes, a run on values gives ``predictions.values``, and one on masks
        ``predictions.masks``, which have the size of the images as the model gets them.

        The model computes in evaluation mode and in the dtype of its weights, without autocast. So predictions are the
        same on every backend, within rounding.

        Args:
            images: The path of an image or of a folder of images, an image of Pillow, or an array: uint8 of shape
                (N, H, W, C) or (N, C, H, W), or one image without N. A run on data of floats takes floats of shape
                (N, C, H, W). Or a list of these. A folder's images are taken in the order of their paths.
            top_k: How many classes of each image to name, the likeliest first; of class numbers alone.
            batch_size: How many images the model takes at a time.
            backend: The name of the backend that answers; None is the run's own.
            weights: ``"average"`` (the moving average, with ``ema_decay``) or ``"last"`` (after the last update). None
                is the average where there is one.
            resize: Whether images of other sizes are resized. None resizes files and Pillow's images, and refuses
                arrays unless the run itself resizes (``image_size``).
            model: What builds the model, as for ``run``: where the run had a callable that cannot be written down.
            device: Where to compute: ``"auto"``, ``"cpu"`` or ``"cuda"``.

        Raises:
            DataError: An image is damaged, or not like those that the model takes.
            SpecError: An argument is wrong, or a file names code that nobody trusts.
            CheckpointError: The run has no weights, or not those of the model.
            BackendUnavailable: The backend does not work on this machine.
            Unsupported: The backend cannot compute what the model does.

        Example:
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> result.predict(data[0]).probabilities.shape
            (8, 2)
        """
        return predict(
            self,
            images,
            top_k=top_k,
            batch_size=batch_size,
            backend=backend,
            weights=weights,
            resize=resize,
            model=model,
            device=device,
        )

    def evaluate(
        self,
        data: DataSource | None = None,
        *,
        data_root: str | Path | None = None,
        part: Literal["test", "train", "all"] = "test",
        batch_size: int | None = None,
        backend: str | None = None,
        weights: Literal["average", "last"] | None = None,
        model: str | Callable[[], Any] | None = None,
        device: str = "auto",
        loss: Any = None,
        metrics: Any = None,
    ) -> Evaluation:
        """Measure the run's model on images with targets: the loss and metrics; of classes the accuracy and more.

        Args:
            data: As for ``run``; None is what the run was trained on. Images must be like those of the run; those of a
                folder become what the run's became, and are divided by the same share and seed. Classes that have
                names in both are matched by name, else by number.
            data_root: The folder of the CIFAR-10 files, as for ``run``.
            part: Which images count: those to ``"test"`` with, those to ``"train"`` with, or ``"all"``.
            batch_size: How many images the model takes at a time; None is the run's.
            backend: As in ``predict``.
            weights: As in ``predict``.
            model: As in ``predict``.
            device: As in ``predict``.
            loss: What to measure instead of the run's own loss: a function (outputs, targets) -> loss, or its import
                path. None is the run's own, where a file holds it or this process has trained with it. After a run with
                ``mix`` a function gets the share of each class, as in the run.
            metrics: What else to measure, as for ``run``. None is what the run has measured, in its own process.

        Raises:
            DataError: The data are missing or damaged, or their images, classes or targets are not those of the run.
            SpecError: An argument is wrong, or a file names code that nobody trusts.
            CheckpointError: The run has no weights, or not those of the model.
            BackendUnavailable: The backend does not work on this machine.
            Unsupported: The backend cannot compute what the model does.

        Example:
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> print(result.evaluate(data).accuracy == result.accuracies[-1])
            True
        """
        return evaluate(
            self,
            data,
            data_root=data_root,
            part=part,
            batch_size=batch_size,
            backend=backend,
            weights=weights,
            model=model,
            device=device,
            loss=loss,
            metrics=metrics,
        )

    def export(
        self,
        path: str | Path,
        *,
        format: Literal["onnx", "torch.export", "torch", "safetensors", "oneflow"] | None = None,
        weights: Literal["average", "last"] | None = None,
        normalise: bool = False,
        check: bool = True,
        overwrite: bool = False,
        model: str | Callable[[], Any] | None = None,
    ) -> Export:
        """Write the run's model for use without this library, whole or not at all.

        ``.onnx`` and ``.pt2`` (``torch.export``) hold the whole model. It takes any number of images of the run's size,
        named ``images``, and answers with ``logits`` (of a run on values, with ``values``). They are made from torch's
        model with the run's weights, also where the run trained in OneFlow. An ONNX model computes in float32.
        ``.pth``, ``.safetensors`` and OneFlow's own folder (``.oneflow``) hold the weights alone, a plain
        ``state_dict``.

        Args:
            path: The file to write; its ending says the format.
            format: Says the format instead.
            weights: As in ``predict``.
            normalise: Whether the model itself normalises: it then takes pixels, uint8 of shape (N, C, H, W). Else it
                takes what the run's model takes, float32, normalised before.
            check: Whether the model's answers to random images are compared with those of torch and of OneFlow, where
                it is installed and takes the model. A model that answers otherwise is not written.
            overwrite: Whether a file that is there already may be replaced.
            model: As in ``predict``.

        Raises:
            SpecError: An argument is wrong, or there is something already.
            CheckpointError: The run has no weights, or not those of the model.
            ToolUnavailable: ONNX is asked for, and onnx, onnxscript or onnxruntime is not installed.
            BackendUnavailable: The framework that writes this format does not work here.
            Unsupported: The model cannot be exported, or answers otherwise.

        Example:
            >>> import tempfile
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     exported = result.export(f"{folder}/weights.pth")
            ...     sorted(torch.load(exported.path, weights_only=True))
            ['1.bias', '1.weight']
        """
        return export(
            self,
            path,
            format=format,
            weights=weights,
            normalise=normalise,
            check=check,
            overwrite=overwrite,
            model=model,
        )

    def card(
        self,
        path: str | Path | None = None,
        *,
        overwrite: bool = False,
        model: str | Callable[[], Any] | None = None,
    ) -> str:
        """Describe the model in Markdown: its plan, its data and their digest, versions, metrics, how to load it.

        Args:
            path: A file to write it to, whole or not at all; None writes none. A card that is there is replaced.
            overwrite: Whether another file that is there may be replaced too.
            model: What builds the model, a callable or its name, where the run could not write it down; it is named.

        Raises:
            SpecError: Nothing can be written there, there is a file that is no model card, or ``model`` is no name.

        Example:
            >>> import torch
            >>> import layered_lr as ll
            >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
            >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
            >>> spec = ll.Spec(ll.SGD(0.1))
            >>> result = ll.run(spec, model=build, data=data, epochs=1, batch_size=4, progress=False)
            >>> [line for line in result.card().splitlines() if line.startswith("## ")]
            ['## How to use it', '## Data', '## Training', '## Plan', '## Metrics', '## Versions']
        """
        check_yes_or_no("card", "overwrite", overwrite)
        text = card_text(self, model)
        if path is not None:
            write_card(path, text, overwrite)
        return text

    def __str__(self) -> str:
        return harmless(result_text(self))


def _largest_difference(applied: Float64, planned: Float64) -> float:
    """Relative, of those updates whose planned rate is known; in blocks, so that long runs need no memory for it."""
    largest = 0.0
    for start in range(0, len(planned), _BLOCK_STEPS):
        is_rate, due = applied[start : start + _BLOCK_STEPS], planned[start : start + _BLOCK_STEPS]
        relative = np.abs(is_rate - due) / np.where(due == 0, 1.0, np.abs(due))
        largest = float(np.max(relative[~np.isnan(due)], initial=largest))
    return largest


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
    if (step := step_of_weights(result)) is not None:
        lines.append(_weights_line(result, step))
    if len(result.accuracies):
        lines.append(f"test accuracy {result.accuracies[-1]:.4f} after {len(result.losses)} steps")
    elif (measured := result.logged.get(TEST_LOSS)) is not None and len(measured):
        names = [name for name in (TEST_LOSS, *result.metrics) if len(result.logged.get(name, []))]
        numbers = {name: result.logged[name][-1][1] for name in names}
        said = ", ".join(f"{name} {number:.6g}" for name, number in numbers.items())
        lines.append(f"{said} after {int(measured[-1][0])} steps")
    lines.append(f"last loss {result.losses[-1]:.4f}")
    first = f" (the first one {result.first_step_seconds:.2f} s)" if len(result.losses) > 1 else ""
    if not math.isnan(result.seconds_per_step):
        lines.append(f"{result.seconds_per_step * 1e3:.1f} ms per step{first}")
    if result.compile_seconds is not None:
        lines.append(f"compiling took {result.compile_seconds:.2f} s")
    return "\n".join(lines)


def _weights_line(result: Result, step: int) -> str:
    """Says that the weights are not the last ones, and what was measured with them."""
    names = [ACCURACY] if len(result.accuracies) else [TEST_LOSS, *result.metrics]
    numbers = {name: number for name, number in measured_after(result, step).items() if name in names}
    said = ", ".join(f"{name} {number:{'.4f' if name == ACCURACY else '.6g'}}" for name, number in numbers.items())
    line = f"the weights are those of the best epoch, after {step} of {len(result.losses)} steps"
    return f"{line}: {said}" if said else line


def _span(rates: Any) -> str:
    return f"{rates[0]:.6g} -> {rates[-1]:.6g}"
