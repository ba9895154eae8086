"""Training, top to bottom: a spec, a backend, a model and data become a ``Result``."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from layered_lr import __version__, models
from layered_lr.backend import Extras, Session
from layered_lr.data import Batches, load_dataset
from layered_lr.errors import LayeredLRError, SpecError, TrainingDiverged
from layered_lr.live import LARGEST
from layered_lr.modules import parameters_of
from layered_lr.options import RunOptions
from layered_lr.plans import Plan, resolve
from layered_lr.registry import TABLE, check_name, load_backend, versions
from layered_lr.result import Result
from layered_lr.spec import Spec
from layered_lr.timeline import open_session
from layered_lr.weights import Weights, merged, read_weights

_REFRESH_SECONDS = 0.2


def train(spec: Spec, options: RunOptions) -> Result:
    """See ``layered_lr.run``; everything that can be wrong is found before the framework is loaded, if it can be."""
    check_name(options.backend)
    given = None if options.initial_weights is None else read_weights(options.initial_weights)
    dataset = load_dataset(options.data, options.data_root)
    batches = Batches(dataset, options.batch_size, options.seed, options.augment)
    in_epoch = options.steps_per_epoch(len(dataset.y_train))
    lengths = options.total_steps(in_epoch), in_epoch
    if isinstance(options.model, str):
        check_images(options, dataset.facts.image_shape)
        resolve(spec, models.parameters(options.model, dataset.num_classes), *lengths)

    backend = load_backend(options.backend, options.device)
    model = backend.build(options.model, dataset.num_classes, options.dropout, options.seed, options.dtype)
    plan = resolve(spec, model, *lengths)
    check_trainable(plan, model)
    lowering = plan.lowering(options.backend)
    backend.load(model, start_weights(options, plan, dataset.num_classes, backend.state(model), given))
    extras = Extras(options.accumulate_steps, options.ema_decay, seed=options.seed)
    session = open_session(backend, plan, model, dataset.num_classes, extras)
    check_answer(session, batches)

    history = _Loop(session, plan, batches, options.progress).run()
    weights = session.weights()
    _check_finite(plan, weights)
    result = Result(
        backend=options.backend,
        plan=plan,
        losses=history.losses,
        rates=_by_group(plan, history.rates),
        accuracies=history.accuracies,
        grad_norms=np.hypot.reduce(history.grad_norms, axis=1),
        group_grad_norms=_by_group(plan, history.grad_norms),
        ema_accuracies=history.ema_accuracies,
        ema_weights={} if options.ema_decay is None else session.ema_weights(),
        weights=weights,
        lowering=lowering,
        seconds_per_step=history.seconds_per_step,
        first_step_seconds=history.first_step_seconds,
        versions=_versions(options.backend),
        options=options.to_dict(),
    )
    if options.save:
        result.save(options.save)
    return result


def _check_finite(plan: Plan, weights: Weights) -> None:
    """What the last update did, no loss has shown yet."""
    for parameter in plan.parameters:
        if not np.isfinite(weights[parameter.name]).all():
            raise TrainingDiverged(f"{parameter.name} is NaN or infinite after the last update. Try lower rates.")


def _by_group(plan: Plan, table: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return dict(zip((group.name for group in plan.groups), table.T, strict=True))


def start_weights(options: RunOptions, plan: Plan, num_classes: int, own: Weights, given: Weights | None) -> Weights:
    """The state to start from: given, or drawn from the seed, or as the user's callable made it."""
    if isinstance(options.model, str):
        own = models.initial_weights(options.model, num_classes, options.seed)
    if given is None:
        return own
    return merged(own, [parameter.name for parameter in plan.parameters], given, options.reset_weights)


def check_images(options: RunOptions, shape: tuple[int, int, int]) -> None:
    """What MobileNetV2 takes; torch and OneFlow would differ in how they fail."""
    channels, height, width = shape
    if channels != 3:
        raise SpecError(f"model {options.model!r} takes images of 3 channels, the data has {channels}.")
    if options.batch_size == 1 and max(height, width) <= models.SMALLEST_MAP:
        raise SpecError(
            f"batch_size=1: at {height}x{width} pixels, model {options.model!r} has batch normalisations of a single "
            "value, which have no variance. Use batch_size=2 or more."
        )


def check_trainable(plan: Plan, model: Any) -> None:
    """What every framework would refuse in its own words, or train on nothing."""
    if not any(tensor.requires_grad for _, tensor in parameters_of(model)):
        raise SpecError("model: every parameter has requires_grad=False; there is nothing to train.")
    largest = float(plan.table().max(initial=0.0))
    dtype = max((parameter.dtype for parameter in plan.parameters), default="float32")
    if dtype != "float32":
        return
    if largest > LARGEST:
        raise SpecError(f"the largest rate of the plan, {largest:g}, is more than the weights' float32 can hold.")
    for group in (group for there in plan.stretches for group in there.groups):
        for name, value in asdict(group.optimizer).items():
            if isinstance(value, float) and abs(value) > LARGEST:
                raise SpecError(f"group {group.name!r}: {name}={value:g} is more than the weights' float32 can hold.")
    for there in plan.stretches:
        if (value := there.spec.clip_grad_value or 0.0) > LARGEST:
            raise SpecError(f"clip_grad_value={value:g} is more than the weights' float32 can hold.")


def check_answer(session: Session, batches: Batches) -> None:
    """One batch of test images through the model: an answer of the wrong shape would abort OneFlow's process."""
    images, _, _ = next(iter(batches.test()))
    try:
        answer = session.logits(images)
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's forward pass raises
        raise SpecError(
            f"model: its forward pass does not take images of shape {images.shape}: {type(error).__name__}: {error}"
        ) from error
    session.check_logits(answer, len(images))


class History(NamedTuple):
    """What a run did, step by step; see ``Result``."""

    losses: NDArray[np.float64]
    rates: NDArray[np.float64]
    grad_norms: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    ema_accuracies: NDArray[np.float64]
    seconds_per_step: float
    first_step_seconds: float


class _Loop:
    """The training loop: epochs of batches, losses fetched in blocks, an evaluation after each epoch."""

    def __init__(self, session: Session, plan: Plan, batches: Batches, progress: bool) -> None:
        self.session, self.plan, self.batches = session, plan, batches
        self.steps = plan.total_steps or 0
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.ema_accuracies: list[float] = []
        self.in_epoch = -(-batches.steps_per_epoch // session.extras.accumulate_steps)
        self._pending: list[Any] = []  # losses that the framework has and this process has not
        self._shown_at = 0.0
        self._reacts_each_step = "step" in plan.reacting_units
        self.bar = tqdm(total=self.steps, unit="step", disable=None if progress else True, dynamic_ncols=True)

    def run(self) -> History:
        """Train for all steps of the plan."""
        first_seconds = rest_seconds = 0.0
        with self.bar:
            for epoch in range(-(-self.steps // self.in_epoch)):
                updates = itertools.islice(self._updates(epoch), self.steps - len(self.losses))
                if epoch == 0:
                    first_seconds = self._train(itertools.islice(updates, 1))
                rest_seconds += self._train(updates)
                self.accuracies.append(self._accuracy())
                if self.session.extras.ema_decay is not None:
                    self.ema_accuracies.append(self._accuracy(ema=True))
                self._observe_epoch(epoch)
                self._show()
        return History(
            losses=np.array(self.losses),
            rates=self.session.rates(0, self.steps),
            grad_norms=self._grad_norms(),
            accuracies=np.array(self.accuracies),
            ema_accuracies=np.array(self.ema_accuracies),
            seconds_per_step=rest_seconds / (self.steps - 1) if self.steps > 1 else first_seconds,
            first_step_seconds=first_seconds,
        )

    def _updates(self, epoch: int) -> Iterator[tuple[Any, Any, int]]:
        """The epoch's batches, put together to updates: images, labels, and how many batches they are."""
        batches = self.batches.epoch(epoch)
        while together := list(itertools.islice(batches, self.session.extras.accumulate_steps)):
            images, labels = together[0] if len(together) == 1 else map(np.concatenate, zip(*together, strict=True))
            yield images, labels, len(together)

    def _grad_norms(self) -> NDArray[np.float64]:
        """Each group's gradient norms, shape (steps, groups); (0, groups) where they were not measured."""
        if not self.session.extras.grad_norms:
            return np.empty((0, len(self.plan.groups)))
        return self.session.grad_norms(0, self.steps)

    def _train(self, updates: Iterable[tuple[Any, Any, int]]) -> float:
        """Make the updates; returns the seconds until the last of them was done."""
        began = time.perf_counter()
        for images, labels, parts in updates:
            self._pending.append(self.session.train_step(images, labels, parts))
            if self._reacts_each_step:
                self._fetch()
                self.session.observe({"loss": self.losses[-1]}, "step")
            self.bar.update()
            if len(self._pending) > self.session.steps_ahead:
                self._fetch(keep=self.session.steps_ahead // 2)
            if not self.bar.disable and time.monotonic() - self._shown_at > _REFRESH_SECONDS:
                self._fetch(keep=self.session.steps_ahead // 2)
                self._show()
        self._fetch()
        return time.perf_counter() - began

    def _fetch(self, keep: int = 0) -> None:
        """Wait for the losses of the steps since the last time, except the newest few.

        Raises:
            TrainingDiverged: One of them is NaN or infinite.
        """
        done = self._pending[: len(self._pending) - keep] if keep else self._pending
        losses = self.session.losses(done)
        del self._pending[: len(done)]
        wrong = np.flatnonzero(~np.isfinite(losses))
        if len(wrong):
            step = len(self.losses) + int(wrong[0])
            rates = self.session.rates(step, step + 1)[0]
            shown = ", ".join(f"{group.name}: {rate:g}" for group, rate in zip(self.plan.groups, rates, strict=True))
            raise TrainingDiverged(f"the loss is {losses[wrong[0]]} at step {step}, at rates {shown}. Try lower ones.")
        self.losses.extend(losses.tolist())

    def _observe_epoch(self, epoch: int) -> None:
        """Show reactive schedules the mean training loss of the epoch, and the accuracy after it."""
        losses = self.losses[epoch * self.in_epoch :]
        self.session.observe({"loss": float(np.mean(losses)), "accuracy": self.accuracies[-1]}, "epoch")

    def _accuracy(self, ema: bool = False) -> float:
        """The fraction of the test set that the model, or its moving average, gets right."""
        right = 0
        for images, labels, count in self.batches.test():
            right += int(np.sum(self.session.logits(images, ema).argmax(axis=1)[:count] == labels[:count]))
        return right / len(self.batches.dataset.y_test)

    def _show(self) -> None:
        """Loss, accuracy and rates beside the progress bar."""
        self._shown_at = time.monotonic()
        if self.bar.disable or not self.losses:
            return
        step = len(self.losses) - 1
        shown = {"loss": f"{self.losses[-1]:.4f}"}
        if self.accuracies:
            shown["accuracy"] = f"{self.accuracies[-1]:.3f}"
        rates = self.session.rates(step, step + 1)[0]
        shown |= {group.name: f"{rate:.2e}" for group, rate in zip(self.plan.groups, rates, strict=True)}
        self.bar.set_postfix(shown, refresh=True)


def _versions(backend: str) -> dict[str, str]:
    """Of this library, Python, NumPy and the backend's packages."""
    own = {"python": platform.python_version(), "numpy": np.__version__, "layered_lr": __version__}
    return own | {name: version for name, version in versions(TABLE[backend].framework).items() if version}
