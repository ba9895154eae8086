"""The training loop: batches, losses fetched in blocks, an evaluation after each epoch, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from layered_lr.arrays import Float64
from layered_lr.backend.base import Session, add_seconds
from layered_lr.console import say
from layered_lr.data import Batches
from layered_lr.errors import CheckpointError, TrainingDiverged
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr.training.divergence import Guard
from layered_lr.training.evaluation import accuracy
from layered_lr.training.history import History
from layered_lr.training.run_log import Keeper, metric_of
from layered_lr.training.signals import Stop

_REFRESH_SECONDS = 0.2
_INTERRUPT_SECONDS = 1.0  # that an interrupt may wait for updates which the framework was asked for
_LEAST_AHEAD = 2  # of those: with fewer it would wait for this process at each one
_BLOCK_STEPS = 1 << 12


class Loop:
    """Trains from where the session stands to the end of the plan.

    Args:
        session: Ready for its next update.
        plan: Of the whole run.
        batches: Of the data.
        progress: Whether to show a bar, where stderr is a terminal.
        history: What was measured before the session's next update.
        keeper: Where checkpoints go; None writes none.
        guard: What happens when numbers are not finite.
        reopened: Makes a session at rates times a factor, for a rollback.
        skipped: Batches that were left out before.
        events: What happened before.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        batches: Batches,
        progress: bool,
        history: History,
        keeper: Keeper | None = None,
        guard: Guard | None = None,
        reopened: Callable[[float], Session] | None = None,
        skipped: int = 0,
        events: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.session, self.plan, self.batches, self.history = session, plan, batches, history
        self.keeper, self.guard, self._reopened = keeper, guard or Guard(), reopened
        self.steps = plan.total_steps or 0
        self.step = session.step
        self.skipped = skipped
        self.events = [dict(event) for event in events]
        self.in_epoch = -(-batches.steps_per_epoch // session.extras.accumulate_steps)
        if self.step < self.steps:  # what was measured at the end of a shorter run, in mid-epoch, is no epoch's
            history.accuracies.cut(self.step // self.in_epoch)
            history.ema_accuracies.cut(self.step // self.in_epoch)
        self.first_step_seconds = self._seconds = 0.0
        self._timed = self._untimed = 0
        self._pending: list[Any] = []  # losses that the framework has and this process has not
        self._good: list[TrainingState] = []  # to go back to: the newest two
        self._back_at: TrainingState | None = None  # where the last rollback went
        self._shown_at = 0.0
        self._ahead = _LEAST_AHEAD
        self._paced = time.perf_counter(), self.step
        self._compiled: float | None = None  # by sessions that are gone
        self._reacts_each_step = "step" in plan.reacting_units
        self.bar = tqdm(
            total=self.steps, initial=self.step, unit="step", disable=None if progress else True, dynamic_ncols=True
        )

    def run(self, checkpoint_first: bool = False) -> None:
        """Train for all steps of the plan.

        Args:
            checkpoint_first: Write one before anything else, for a run that has just been begun or changed.
        """
        with self.bar, Stop() if self.keeper else nullcontext(Stop()) as stop:
            if checkpoint_first:
                self._checkpoint()
            if self.guard.rolls_back:
                self._good = [self._state()]
            updates = self._updates()
            began = time.perf_counter()
            while self.step < self.steps:
                if not self._update(*next(updates)):
                    updates = self._updates()
                    continue
                at_end = self._ends_epoch() or self.step == self.steps
                if at_end or self._timed == 0:
                    self._fetch()
                    began = self._clocked(began)
                if at_end:
                    self._end_epoch()
                    began = time.perf_counter()
                asked = self.keeper is not None and stop.signal
                if asked or self._is_due():
                    self._checkpoint()
                if asked:
                    self._say_where(stop)
                    stop.obey()
            self._fetch()
        self._collect()

    @property
    def seconds_per_step(self) -> float:
        """Mean time of an update, the first one left out where there are more."""
        return self._seconds / self._timed if self._timed else self.first_step_seconds

    @property
    def compile_seconds(self) -> float | None:
        """What compiling has taken, in all sessions; None where nothing was compiled."""
        return add_seconds(self._compiled, self.session.compile_seconds)

    def _clocked(self, began: float) -> float:
        """Count the time since then for the updates since then."""
        now = time.perf_counter()
        if self.first_step_seconds == 0.0:
            self.first_step_seconds = now - began
        else:
            self._seconds += now - began
            self._timed += self._untimed
        self._untimed = 0
        return now

    def _ends_epoch(self) -> bool:
        return self.step % self.in_epoch == 0

    def _is_due(self) -> bool:
        if self.keeper is None:
            return False
        return self.step == self.steps or self.keeper.is_due(self.step, self.in_epoch)

    def _updates(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], int]]:
        """The batches of the updates from where the run stands on."""
        together, start = self.session.extras.accumulate_steps, self.step + self.skipped
        return self.batches.updates(together, start, self.session.wants_channels_last)

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> bool:
        """Make one update; False where it was undone and does not count, or where the run went back."""
        before = self._state_before_update()
        self._pending.append(self.session.train_step(images, labels, parts))
        self.step += 1
        self._untimed += 1
        if self.guard.checks_each_update and not self._is_sound():
            return self._undo(before)
        if self._reacts_each_step:
            self._fetch()
            self.session.observe({"loss": float(self.history.losses.numbers()[-1])}, "step")
        self.bar.update()
        if len(self._pending) > self._ahead:
            self._fetch(keep=self._ahead // 2)
            self._pace()
        if self._is_time_to_show():
            self._fetch(keep=self._ahead // 2)
            self._show()
        return True

    def _pace(self) -> None:
        """Ask for as many updates ahead as are made while an interrupt may wait, and no more than the session takes."""
        now, (then, step) = time.perf_counter(), self._paced
        self._paced = now, self.step
        each = max(now - then, 1e-9) / max(self.step - step, 1)  # a rollback goes back
        self._ahead = max(_LEAST_AHEAD, min(int(_INTERRUPT_SECONDS / each), self.session.steps_ahead))

    def _state_before_update(self) -> TrainingState | None:
        if not self.guard.skips:
            return None
        self._fetch()
        self._collect()
        return self.session.export_state()

    def _is_sound(self) -> bool:
        """Whether the loss and the gradient of the last update are finite; waits for it."""
        (loss,) = self.session.losses(self._pending[-1:])
        norms = self.session.grad_norms(self.step - 1, self.step)
        self._wrong = f"the loss is {loss}" if not np.isfinite(loss) else "a gradient is NaN or infinite"
        return bool(np.isfinite(loss) and np.isfinite(norms).all())

    def _undo(self, before: TrainingState | None) -> bool:
        at = self.step - 1
        self._pending.pop()
        self.guard.count(at, self._wrong)
        if before is None:
            self._roll_back(at)
            return False
        if self.guard.skip_advances:
            self._fetch()
            self._collect_tables(self.step)
            self.history.losses.add([np.nan])
            self.bar.update()
            self.session.pass_over(before)
        else:
            self.skipped += 1
            self.session.import_state(before)
        self.step = self.session.step
        self._note("skipped", step=at, why=self._wrong)
        return self.guard.skip_advances

    def _roll_back(self, at: int) -> None:
        """Go on from the last good state, at rates times the guard's factor; where that did not help, the one before.

        A checkpoint may fall right behind the update that has made the weights too large.
        """
        assert self._good and self._reopened is not None  # a guard that rolls back has both
        if self._good[-1] is self._back_at and len(self._good) > 1:
            self._good.pop()
            if self.keeper:
                self.keeper.remove_after(self._good[-1].step)
        good = self._back_at = self._good[-1]
        self.guard.lower_rates()
        self._pending.clear()
        self._compiled = self.compile_seconds
        self.session = self._reopened(self.guard.rate_factor)
        self.session.import_state(good)
        self.history = History.of(good.history, len(self.plan.groups), self.steps)
        self.step = self.session.step
        self.bar.n = self.step
        if self.keeper:
            self.keeper.go_back(self.step)
        self._note("rolled back", step=at, to=self.step, rate_factor=self.guard.rate_factor, why=self._wrong)

    def _note(self, what: str, **values: Any) -> None:
        self.events.append({"event": what, **values})
        if self.keeper:
            self.keeper.event(what, **values)
        say(f"{what}: " + ", ".join(f"{name} {value}" for name, value in values.items()))

    def _state(self) -> TrainingState:
        """Everything to go on from, the history too."""
        self._fetch()
        self._collect()
        return replace(self.session.export_state(), history=self.history.arrays())

    def _checkpoint(self) -> None:
        assert self.keeper is not None
        state = self._state()
        self.keeper.add(self.history)
        try:
            state.check_finite()
        except CheckpointError as error:  # the next update will show it
            say(f"after {self.step} updates {error} No checkpoint is written of that.")
            return
        if self.guard.rolls_back:
            self._good = [*self._good[-1:], state]
        metric = metric_of(self.history.accuracies.numbers(), self._ends_epoch() or self.step == self.steps)
        about = {"skipped": self.skipped, "rate_factor": self.guard.rate_factor, "events": self.events}
        self.keeper.checkpoint(state, metric, **about)

    def _say_where(self, stop: Stop) -> None:
        if self.keeper and stop.signal:
            self.keeper.event("stopped", step=self.step, signal=stop.signal.name)
            say(f"stopped by {stop.signal.name} after {self.step} updates. Go on: layered-lr resume {self.keeper.path}")

    def _fetch(self, keep: int = 0) -> None:
        """Wait for the losses of the steps since the last time, except the newest few.

        Raises:
            TrainingDiverged: One of them is NaN or infinite.
        """
        if len(self._pending) <= keep:
            return
        done = self._pending[: len(self._pending) - keep]
        losses = self.session.losses(done)
        del self._pending[: len(done)]
        finite = np.isfinite(losses)
        if not finite.all():
            wrong = int(np.argmin(finite))
            self._diverged(len(self.history.losses) + wrong, float(losses[wrong]))
        self.history.losses.add(losses)

    def _diverged(self, step: int, loss: float) -> None:
        rates = self.session.rates(step, step + 1)[0]
        shown = ", ".join(f"{group.name}: {rate:g}" for group, rate in zip(self.plan.groups, rates, strict=True))
        if self.keeper:
            self.keeper.event("diverged", step=step, loss=repr(loss))
        raise TrainingDiverged(f"the loss is {loss} at step {step}, at rates {shown}. Try lower ones.")

    def _collect(self) -> None:
        """Take over from the session what it applied, for as many updates as there are losses."""
        self._collect_tables(len(self.history.losses))

    def _collect_tables(self, stop: int) -> None:
        """Take over the tables of the updates before ``stop``, in blocks: what is copied on the way stays small."""
        for start in range(len(self.history.rate_factors), stop, _BLOCK_STEPS):
            self._collect_block(start, min(start + _BLOCK_STEPS, stop))

    def _collect_block(self, start: int, stop: int) -> None:
        self.history.rates.add(self.session.rates(start, stop))
        self.history.planned.add(self.guard.rate_factor * self.plan.table(start, stop))
        norms = self.history.grad_norms
        if self.session.extras.grad_norms:
            norms.add(self._unknown_norms(start))
            norms.add(self.session.grad_norms(start, stop))
        elif len(norms):
            norms.add(self._unknown_norms(stop))
        self.history.rate_factors.add(self.guard.rate_factor, stop - start)

    def _unknown_norms(self, stop: int) -> Float64:
        """NaN for those updates before ``stop`` whose norms were not measured: a run that goes on may be changed."""
        return np.full((stop - len(self.history.grad_norms), len(self.plan.groups)), np.nan)

    def _end_epoch(self) -> None:
        """Evaluate, and show reactive schedules the mean training loss of the epoch and the accuracy after it."""
        right = accuracy(self.session, self.batches)
        self.history.accuracies.add([right])
        if self.session.extras.ema_decay is not None:
            self.history.ema_accuracies.add([accuracy(self.session, self.batches, ema=True)])
        loss = _mean(self.history.losses.numbers((self.step - 1) // self.in_epoch * self.in_epoch))
        metrics: Mapping[str, float] = {"loss": loss, "accuracy": right}
        if math.isfinite(loss):  # else every update of the epoch was skipped, and there is nothing to react to
            self.session.observe(metrics, "epoch")
        if self.keeper:
            self._collect()
            self.keeper.add(self.history)
            self.keeper.event("epoch", step=self.step, **metrics)
        if self.step == self.steps or self._is_time_to_show():
            self._show()

    def _is_time_to_show(self) -> bool:
        return not self.bar.disable and time.monotonic() - self._shown_at > _REFRESH_SECONDS

    def _show(self) -> None:
        """Loss, accuracy and rates beside the progress bar."""
        self._shown_at = time.monotonic()
        if self.bar.disable or not self.history.losses:
            return
        step = len(self.history.losses) - 1
        shown = {"loss": f"{self.history.losses.numbers(step)[0]:.4f}"}
        if len(self.history.accuracies):
            shown["accuracy"] = f"{self.history.accuracies.numbers()[-1]:.3f}"
        rates = self.session.rates(step, step + 1)[0]
        shown |= {group.name: f"{rate:.2e}" for group, rate in zip(self.plan.groups, rates, strict=True)}
        self.bar.set_postfix(shown, refresh=True)


def _mean(losses: Float64) -> float:
    """The mean of those losses that are known: skipped updates have NaN."""
    mean = float(np.add.reduce(losses)) / len(losses)
    if math.isfinite(mean) or not np.isfinite(losses).any():
        return mean
    return float(np.nanmean(losses))
