"""The object ``event.run``: what a callback may read of the run, and what it may ask of it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from layered_lr.arrays import Float64, Weights
from layered_lr.backend.session import Session
from layered_lr.data import Batches
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.plans.plan import Plan
from layered_lr.printed import shown
from layered_lr.training.evaluation import WrongAnswers, find_wrong_answers
from layered_lr.training.history import History, Measured
from layered_lr.training.measurements import Measurements


class RunningLoop(Protocol):
    """What a run handle reads of the loop, and asks of it."""

    # ruff: noqa: D102
    plan: Plan
    step: int
    in_epoch: int
    metric_names: tuple[str, ...]
    session: Session
    batches: Batches
    measured: Measurements
    history: History

    @property
    def folder(self) -> Path | None: ...
    def fetch(self, keep: int = 0) -> None: ...
    def ask_to_stop(self, why: str) -> None: ...
    def ask_for_checkpoint(self) -> None: ...


class RunHandle:
    """The run that an event is of: what is known of it, and what a callback may ask for.

    A handle is good as long as its run goes on.

    Args:
        loop: Of the run. It is not kept alive.
        backend: The backend's name.
    """

    def __init__(self, loop: RunningLoop, backend: str) -> None:
        # Weak: OneFlow's graphs must not live in a circle of references (see ``tracing.collect_garbage_first``).
        self._loop = weakref.ref(loop)
        self.backend = backend

    def _running(self) -> RunningLoop:
        loop = self._loop()
        if loop is None:
            raise LayeredLRError("the run has ended: read what you need from an event while the run goes on.")
        return loop

    @property
    def plan(self) -> Plan:
        """The plan of the whole run."""
        return self._running().plan

    @property
    def step(self) -> int:
        """How many updates have been made so far."""
        return self._running().step

    @property
    def total_steps(self) -> int:
        """How many updates the whole run makes."""
        return self.plan.total_steps or 0

    @property
    def steps_per_epoch(self) -> int:
        """How many updates an epoch has."""
        return self._running().in_epoch

    @property
    def folder(self) -> Path | None:
        """The run's folder; None where the run keeps no checkpoints."""
        return self._running().folder

    @property
    def losses(self) -> Float64:
        """The losses of the first updates, as many as have been read from the framework, shape (n,); never waits."""
        return self._running().history.losses.numbers()

    @property
    def accuracies(self) -> Float64:
        """The test accuracy after each epoch so far, shape (epochs,), as fractions."""
        return self._running().history.accuracies.numbers()

    @property
    def ema_accuracies(self) -> Float64:
        """The moving average's test accuracy after each epoch so far, shape (epochs,); empty without ``ema_decay``."""
        return self._running().history.ema_accuracies.numbers()

    @property
    def metrics(self) -> tuple[str, ...]:
        """What each evaluation measures beside the accuracy, as ``logged`` names it; of the average ``ema NAME``."""
        return self._running().metric_names

    @property
    def logged(self) -> Mapping[str, Float64]:
        """What callbacks have logged so far, by name: rows of (updates made, number), shape (n, 2)."""
        return MappingProxyType({name: rows.numbers() for name, rows in self._running().history.logged.items()})

    def measured(self, start: int = 0) -> Measured:
        """What is known of the updates from ``start`` on: losses, rates, gradient norms; never waits for a loss.

        Args:
            start: The first update, 0-based.
        """
        loop = self._running()
        loop.measured.collect()
        return loop.history.since(start)

    def wrong_answers(self, most: int) -> WrongAnswers:
        """Test images that the model gets wrong, the first ones of the test set; waits for the framework.

        Args:
            most: How many to look for; only the first batches of the test set are looked at.
        """
        loop = self._running()
        return find_wrong_answers(loop.session, loop.batches, most)

    def weights(self) -> Weights:
        """A copy of every parameter and buffer, by name; waits for the framework."""
        return self._running().session.weights()

    def ema_weights(self) -> Weights:
        """A copy of the moving average of every parameter and buffer, by name; waits for the framework.

        Raises:
            SpecError: The run keeps no moving average (``ema_decay``).
        """
        return self._running().session.ema_weights()

    def stop(self, why: str = "") -> None:
        """End the run after this update: it is evaluated, a checkpoint is written, and ``ll.run`` returns its result.

        Args:
            why: The reason in words; it is said on the screen and goes into the run's events. Empty says that a
                callback has asked for it.
        """
        self._running().ask_to_stop(why or "a callback has asked for it")

    def stop_unsaid(self) -> None:
        """As ``stop``, without a word and without an event: for what trains only to measure something."""
        self._running().ask_to_stop("")

    def checkpoint(self) -> None:
        """Write a checkpoint after this update.

        Raises:
            SpecError: The run has no folder.
        """
        if self.folder is None:
            raise SpecError("checkpoint: the run has no folder to write it to. Give ll.run(checkpoints=...).")
        self._running().ask_for_checkpoint()

    def log(self, numbers: Mapping[str, float] | None = None, /, **more: float) -> None:
        """Keep numbers of your own with the run: in ``Result.logged``, checkpoints and ``logged.csv``.

        Args:
            numbers: By name; each counts for the updates made so far (``step``).
            more: The same, as keywords.

        Raises:
            SpecError: A name that is no string or is that of a metric of the run, or a value that is not a number.
        """
        loop = self._running()
        given = {**(numbers or {}), **more}
        for name, value in given.items():
            if not isinstance(name, str) or not name:
                raise SpecError(f"log: the name {name!r} must be a string that is not empty.")
            if name in loop.metric_names:
                raise SpecError(f"log: {name!r} is one of the run's metrics; give your number another name.")
            if isinstance(value, str | bytes) or np.ndim(value) != 0:
                raise SpecError(f"log: {name}={shown(value)} must be a single number.")
        try:
            plain = {name: float(value) for name, value in given.items()}
        except (TypeError, ValueError, OverflowError) as error:
            raise SpecError(f"log: every value must be a number: {error}.") from None
        loop.history.log(loop.step, plain)

    def read_loss(self, step: int) -> float:
        """The loss of one update that was made; waits for it.

        Args:
            step: Which one, 0-based.
        """
        loop = self._running()
        if step >= len(loop.history.losses):
            loop.fetch(keep=loop.step - step - 1)
        return float(loop.history.losses.numbers(step)[0])

    def read_rates(self, step: int) -> Float64:
        """Each group's rate at one update that was made, as the framework applied it, shape (groups,).

        Args:
            step: Which one, 0-based.
        """
        return self._running().measured.rates_of(step)

    def read_grad_norms(self, step: int) -> Float64:
        """Each group's gradient norm at one update that was made, shape (groups,); NaN where it is not measured.

        Args:
            step: Which one, 0-based.
        """
        return self._running().measured.grad_norms_of(step)
