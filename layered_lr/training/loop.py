"""The training loop: the only one, which ``ll.run``, ``ll.resume`` and ``ll.compare`` all go through.

Its events, in their order; each goes to the callbacks (``layered_lr.training.callback``)::

    begin
    while updates are left and nobody has stopped the run:
        batch                       which a callback may change, or skip
        update                      made; its loss is read later, in blocks
          or overflow               of the scaled loss in float16: the batch is left out
          or divergence             the loss or a gradient is not finite: the end, or undone, or gone back from
        at the end of an epoch, and of the run:
            evaluation              of the model, and of its moving average
            epoch
        where one is due, or was asked for:
            checkpoint
    end                             also where an error ends the run

Beside the callbacks the loop has parts of its own: the progress bar (``progress``), the run's folder (``run_log``),
the divergence guard (``divergence``), what is measured (``measurements``), and how far ahead it asks for updates
(``timing``).
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Targets
from layered_lr.backend.processes import ALONE, Processes
from layered_lr.backend.session import Session, add_seconds
from layered_lr.console import say
from layered_lr.data import Batches
from layered_lr.errors import CallbackError, CheckpointError, LayeredLRError, TrainingDiverged
from layered_lr.losses import ClassLoss
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, Metrics, metric_functions
from layered_lr.state.state_files import gather_rest
from layered_lr.state.training_state import TrainingState
from layered_lr.training.best_weights import ENDED, Watcher
from layered_lr.training.callback import DIVERGED, Announcer, Callback, CallbackFailed
from layered_lr.training.checks import train_first_step
from layered_lr.training.divergence import GoodStates, Guard
from layered_lr.training.evaluation import MeasuredLoss, evaluate
from layered_lr.training.followers import FollowedLog
from layered_lr.training.history import History, mean_loss
from layered_lr.training.measurements import Measurements, NotFinite
from layered_lr.training.metric_names import EMA_ACCURACY, TEST_LOSS
from layered_lr.training.metrics import Metric, list_names
from layered_lr.training.progress import ProgressBar
from layered_lr.training.result import NO_GRADIENT
from layered_lr.training.run_handle import RunHandle
from layered_lr.training.run_log import RunLog
from layered_lr.training.signals import Stop
from layered_lr.training.timing import Lookahead, Stopwatch

_NOTHING = "each image of its batch is of a class with weight 0, and the mean divides by the sum of the weights."
_GIVE_WEIGHTS = "Give these classes a weight above 0, or use a larger batch_size."

Batch = tuple[NDArray[np.float32], Targets, int]


class Loop:
    """Trains from where the session stands to the end of the plan.

    Args:
        session: Ready for its next update.
        plan: Of the whole run.
        batches: Of the data.
        progress: Whether to show a bar, where stderr is a terminal.
        history: What was measured before the session's next update.
        run_log: What is written into the run's folder; None writes nothing.
        guard: What happens when numbers are not finite.
        reopen: Makes a session at rates times a factor, for a rollback.
        good: States to go back to, in addition to the one that the run begins or goes on with.
        back_at: The step of the state that the run last went back to.
        left_out: Batches that were left out in a row before.
        skipped: Batches that were left out before.
        events: What happened before.
        epoch_is_open: Whether the last update has ended an epoch whose evaluation failed, and is made first.
        callbacks: Told of each event.
        backend: The backend's name, for callbacks.
        evaluates: Whether each epoch ends with an evaluation; false leaves it out unless a schedule reacts to it.
        metrics: What else an evaluation measures, by name.
        test_loss: What an evaluation measures where there is no accuracy; None measures none.
        watcher: Decides whether the run ends early; None never does.
        processes: That train together; all make the same calls in the same order, and decide together.

    Attributes:
        is_trial: Whether nothing is kept of the run, as of a dry run.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        batches: Batches,
        progress: bool,
        history: History,
        *,
        run_log: RunLog | FollowedLog | None = None,
        guard: Guard | None = None,
        reopen: Callable[[float], Session] | None = None,
        good: Sequence[TrainingState] = (),
        back_at: int | None = None,
        left_out: int = 0,
        skipped: int = 0,
        events: Sequence[Mapping[str, Any]] = (),
        epoch_is_open: bool = False,
        callbacks: Iterable[Callback] = (),
        backend: str = "",
        evaluates: bool = True,
        metrics: Mapping[str, Metric] | None = None,
        test_loss: MeasuredLoss | None = None,
        watcher: Watcher | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.session, self.plan, self.batches, self.history = session, plan, batches, history
        self.processes, self._are_many = processes, processes.are_many
        self.run_log, self.guard, self._reopen = run_log, guard or Guard(), reopen
        self.steps = plan.total_steps or 0
        self.step = session.step
        self.skipped = skipped
        self.events = _without_ends(events, is_over=self.step >= self.steps)
        self.in_epoch = -(-batches.steps_per_epoch // session.extras.accumulate_steps)
        self._metrics, self._test_loss, self._watcher = metrics or {}, test_loss, watcher
        self._forget_open_epoch()
        self.measured = Measurements(session, plan, history, self.guard.rate_factor)
        self.watch, self._lookahead = Stopwatch(), Lookahead(self.step)
        self._announce = Announcer(callbacks, RunHandle(self, backend), holds_errors=self._are_many)
        self._hears_batches = self._announce.hears_batches
        self.earlier, self._back_at = tuple(good), back_at
        self._good: GoodStates | None = None
        self._left_out_in_a_row = left_out
        self._stop_because: str | None = None  # a callback's reason
        self._all_stop = False  # whether the processes have agreed on it
        self._wants_checkpoint = False
        self._ends_early = False  # whether all is done for it but the checkpoint
        self.is_trial = False
        self._epoch_ended_at = self.step
        self._epoch_is_open = epoch_is_open
        self._compiled: float | None = None  # by sessions that are gone
        self._own_batch = batches.batch_size // processes.share.count
        self._reacts_each_step = "step" in plan.reacting_units
        self._asks_functions = self._are_many and bool(metric_functions(plan))
        self._evaluates = evaluates or "epoch" in plan.reacting_units
        self._bar = ProgressBar(plan, self.step, progress)
        measured = [*([] if test_loss is None else [TEST_LOSS]), *self._metrics]
        self.metric_names = tuple(list_names(measured, session.extras.ema_decay is not None))

    def run(self, checkpoint_first: bool = False) -> None:
        """Train for all updates of the plan, or until a callback stops the run.

        Args:
            checkpoint_first: Write one before anything else, for a run that has just been begun or changed.

        Raises:
            CallbackError: A callback raised, here or in another process; where the run has a folder, a checkpoint has
                been written.
            TrainingDiverged: A loss or a gradient is not finite, and the guard does not go on.
        """
        with self._bar, Stop() if self.run_log else contextlib.nullcontext(Stop()) as signals:
            try:
                self._train(signals, checkpoint_first)
            except CallbackFailed as failed:
                error = self._callback_error(failed)
                self._announce.end(failed.error)
                raise error from failed.error
            except BaseException as reason:
                if self._epoch_is_open:
                    self._keep_open_epoch(reason)
                self._announce.end(_cause_of(reason))
                raise
            failures = self._announce.end(None)
            self._end_where_one_failed()
            for failure in failures:
                raise self._callback_error(failure) from failure.error

    def _train(self, signals: Stop, checkpoint_first: bool) -> None:
        if self.guard.rolls_back:
            self._good = GoodStates([*self.earlier, self.export_state()], self._back_at)
        if self._watcher is not None and self.step < self.steps and (why := self._watcher.reason(self.history)):
            self.ask_to_stop(why)  # as before, where the run that goes on had ended
            self._ends_early = True
        if checkpoint_first:
            self._checkpoint()
        if self._are_many:  # callbacks that write may be in the first process alone
            self._hears_batches = bool(self.processes.highest([int(self._hears_batches)])[0])
        self._announce.begin()
        if self._ends_early:
            self._note_end()
            return
        if self._epoch_is_open:
            self._close_epoch()
        self._agree(signals)
        updates = self._updates()
        self.watch.begin()
        while self.step < self.steps and not self._is_to_stop:
            if not self._update(*next(updates)):
                self._agree(signals)
                updates = self._updates()
                continue
            at_end = self._ends_epoch() or self.step == self.steps
            if at_end or not self.watch.knows_first:
                self.fetch()
                self.watch.lap()
            if at_end:
                self._announce_epoch(*self._end_epoch())
                self.watch.begin()
            if self._watcher is not None and self._watcher.is_late and self.step < self.steps:
                self.ask_to_stop(self._watcher.time_is_over)
            self._agree(signals)
            self._keep_state(signals)
        self.fetch()
        if self._stop_because is not None:
            self._end_early()
        self.measured.collect()
        self._end_where_one_failed()
        self._note_end()

    def _agree(self, signals: Stop) -> None:
        """Let all processes stop, write a checkpoint, obey a signal or fail where one of them is to: one reduction."""
        if not self._are_many:
            return
        due = self.run_log is not None and self.run_log.is_due(self.step, self.in_epoch)
        wants_end = 1 + self._announce.failed if self._announce.failed else int(self._stop_because is not None)
        asked = [signals.signal or 0, int(due or self._wants_checkpoint), wants_end]
        number, wants, ends = self.processes.highest(asked)
        if ends > 1:
            self._end_together(ends - 1)
        self._wants_checkpoint, self._all_stop = bool(wants), bool(ends)
        signals.signal = signal.Signals(number) if number else None
        if ends and self._stop_because is None:
            self._stop_because = "another process has asked for it"

    @property
    def _is_to_stop(self) -> bool:
        """Whether to end before the next update; of several processes, whether all know it."""
        return self._all_stop if self._are_many else self._stop_because is not None

    def _end_where_one_failed(self) -> None:
        """End the run in all processes where a callback has raised in one of them."""
        if self._are_many:
            self._end_together(self.processes.highest([self._announce.failed])[0])

    def _end_together(self, failed: int) -> None:
        """End the run in all processes, with a checkpoint, where one of them has failed.

        Args:
            failed: How, as ``Announcer.failed``: the highest of all processes.
        """
        if not failed:
            return
        if failed != DIVERGED and self.run_log is not None and self.run_log.checkpoint_step != self.step:
            self._checkpoint()
        self.processes.agree(self._raise_held)

    def _raise_held(self) -> None:
        held = self._announce.held
        if isinstance(held, CallbackFailed):
            raise self._callback_error(held) from held.error
        if held is not None:
            raise held

    def _keep_state(self, signals: Stop) -> None:
        """Write a checkpoint where one is due or asked for; end where a signal asks for it."""
        if self.run_log is None:
            return
        due = self.step == self.steps or self.run_log.is_due(self.step, self.in_epoch)
        if due or signals.signal or self._wants_checkpoint:
            self._checkpoint()
        if signals.signal:
            self.run_log.event("stopped", step=self.step, signal=signals.signal.name)
            way = f"To go on: {self.run_log.way_on}"
            say(f"stopped by {signals.signal.name} after {self.step} updates. {way}")
            signals.obey()

    def _close_epoch(self) -> None:
        """Do what the end of the last update's epoch does, where its evaluation failed before the run went on."""
        if self._ends_epoch() or self.step == self.steps:
            self._announce_epoch(*self._end_epoch())
            if self.run_log:
                self._checkpoint()
        self._epoch_is_open = False

    def _keep_open_epoch(self, reason: BaseException) -> None:
        """Write a checkpoint of an epoch whose evaluation has failed: the run that goes on evaluates it first."""
        if self.run_log is None or self.is_trial:
            return
        if self._are_many and getattr(reason, "said_elsewhere", None) is None:
            return  # the others may not be here: they have not agreed that this has failed
        if self.run_log.checkpoint_step != self.step:
            with contextlib.suppress(CallbackFailed):
                self._checkpoint()
        say(f"the state after {self.step} updates is kept. To go on: {self.run_log.way_on}")

    def _end_early(self) -> None:
        """Do what the end of a run does, where a callback has stopped it before."""
        if self.step < self.steps:
            if not self._ends_epoch():
                self._announce_epoch(*self._end_epoch())
            self._ends_early = True
            if self.run_log:
                self._checkpoint()

    def _end_events(self) -> list[dict[str, Any]]:
        """Why the run ends here, where it is early, and which weights it has; nothing of a run that goes on."""
        if self._epoch_is_open or not (self._ends_early or self.step == self.steps):
            return []
        found: list[dict[str, Any]] = []
        if self._stop_because:
            found.append({"event": "stopped", "step": self.step, "why": self._stop_because})
        if self._watcher is not None:
            found += self._watcher.events(self.history, self.step)
        return found

    def _note_end(self) -> None:
        for event in self._end_events():
            values = dict(event)
            self._note(values.pop("event"), **values)

    @property
    def compile_seconds(self) -> float | None:
        """What compiling has taken, in all sessions; None where nothing was compiled."""
        return add_seconds(self._compiled, self.session.compile_seconds)

    @property
    def folder(self) -> Path | None:
        """The run's folder, if it has one."""
        return None if self.run_log is None else self.run_log.path

    def ask_to_stop(self, why: str) -> None:
        """End the run after this update; of an empty reason nothing is said."""
        self._stop_because = why

    def ask_for_checkpoint(self) -> None:
        """Write a checkpoint after this update."""
        self._wants_checkpoint = True

    def _ends_epoch(self) -> bool:
        return self.step % self.in_epoch == 0

    def _updates(self) -> Iterator[Batch]:
        """The batches of the updates from where the run stands on."""
        together, start = self.session.extras.accumulate_steps, self.step + self.skipped
        return self.batches.updates(together, start, self.session.wants_channels_last)

    def _update(self, images: NDArray[np.float32], labels: Targets, parts: int) -> bool:
        """Make one update; False where it was undone and does not count, or where the run went back."""
        if self._hears_batches:
            batch = self._announce.batch(self.step, images, labels, parts)
            if (why := self._why_to_skip(batch.skipped_because)) is not None:
                return self._leave_out(why)
            images, labels = batch.images, batch.labels
        before = self._state_before_update()
        is_known = self.step and len(labels) == parts * self._own_batch and not self.batches.sizes
        train_step = self.session.train_step if is_known else functools.partial(train_first_step, self.session)
        outcome = train_step(images, labels, parts, *self._whole())
        if not outcome.made_update:
            if outcome.loss_scale is not None:
                return self._pass_overflow(outcome.why, outcome.loss_scale)
            return self._leave_out(outcome.why)
        self.measured.pending.append(outcome)
        self.step += 1
        self.watch.count_update()
        if self.guard.checks_each_update and (fault := self.measured.find_fault(self.step - 1)):
            because = f", because {_NOTHING}".rstrip(".") if self._weighs_nothing(labels) else ""
            return self._undo(before, f"{fault}{because}")
        self._left_out_in_a_row = 0
        if self._reacts_each_step:
            self.fetch()
            self._observe({"loss": float(self.history.losses.numbers()[-1])}, "step")
        self._bar.count_update()
        if len(self.measured.pending) > self._lookahead.updates:
            self.fetch(keep=self._lookahead.updates // 2)
            if not self._are_many:  # else all look at the same updates, so that a fault is found by all of them
                self._lookahead.pace(self.step, self.session.steps_ahead)
        if self._bar.is_due():
            if not self._are_many:
                self.fetch(keep=self._lookahead.updates // 2)
            self._bar.show(self.session, self.history, self.metric_names)
        if self._announce.hears_updates:
            self._announce.update(self.step - 1)
        return True

    def _whole(self) -> tuple[int, ...]:
        """How many images the next update has in all processes, where these have unequal parts of it."""
        if not self._are_many:
            return ()
        whole = self.batches.images_of_update(self.step + self.skipped, self.session.extras.accumulate_steps)
        return (whole,) if whole % self.processes.share.count else ()

    def _why_to_skip(self, why: str | None) -> str | None:
        """Why a batch is left out; where one process leaves it out, or a callback has raised in one, all do so."""
        if not self._are_many:
            return why
        is_left_out, failed = self.processes.highest([int(why is not None), self._announce.failed])
        self._end_together(failed)
        return why or ("another process has left it out" if is_left_out else None)

    def _leave_out(self, why: str) -> bool:
        """Go on with the next batch where no update was made of this one; the schedules stand still.

        Raises:
            TrainingDiverged: A whole epoch of batches was left out, one after the other.
        """
        self._left_out_in_a_row += 1
        if self._left_out_in_a_row > self.in_epoch:
            raise TrainingDiverged(f"no update was made of {self.in_epoch} batches in a row, a whole epoch: {why}.")
        self.skipped += 1
        self._note("left out", step=self.step, why=why)
        return False

    def _pass_overflow(self, why: str, loss_scale: float) -> bool:
        """Go on with the next batch where a scaled gradient overflowed: the scaler looks for a scale that fits."""
        self.skipped += 1
        self._note("overflow", step=self.step, loss_scale=loss_scale, why=why)
        self._announce.overflow(self.step, loss_scale, why)
        return False

    def _state_before_update(self) -> TrainingState | None:
        if not self.guard.skips:
            return None
        self.fetch()
        self.measured.collect()
        return self.session.export_state()

    def _undo(self, before: TrainingState | None, fault: str) -> bool:
        at = self.step - 1
        self.measured.pending.pop()
        try:
            self.guard.count(at, fault)
        except TrainingDiverged:
            self._announce.divergence(at, fault, "stop")
            raise
        if before is None:
            self._roll_back(at, fault)
            return False
        if self.guard.skip_advances:
            self.fetch()
            self.measured.collect_tables(self.step)
            self.history.losses.add([np.nan])
            self._bar.count_update()
            self.session.pass_over(before)
        else:
            self.skipped += 1
            self.session.import_state(before)
        self.step = self.session.step
        self._note("skipped", step=at, why=fault)
        self._announce.divergence(at, fault, "skip")
        return self.guard.skip_advances

    def _roll_back(self, at: int, fault: str) -> None:
        """Go on from the last good state, at rates times the guard's factor."""
        assert self._good is not None and self._reopen is not None  # a guard that rolls back has both
        good, names = self._good.take_newest(), list(self.history.logged)
        self.guard.lower_rates()
        self._compiled = self.compile_seconds
        self.session = self._reopen(self.guard.rate_factor)
        self.session.import_state(good)
        self.history = History.of(good.history, len(self.plan.groups), self.steps)
        self.history.sort_logged(names)
        self.measured = Measurements(self.session, self.plan, self.history, self.guard.rate_factor)
        self.step = self.session.step
        self._forget_open_epoch()
        self._bar.go_back(self.step)
        if self.run_log:
            self.run_log.go_back(self.step, self.history)
            self.run_log.remove_after(self.step)
        self._note("rolled back", step=at, to=self.step, rate_factor=self.guard.rate_factor, why=fault)
        self._announce.divergence(at, fault, "rollback")

    def fetch(self, keep: int = 0) -> None:
        """Wait for the losses of the updates since the last time.

        Args:
            keep: How many of the newest not to wait for.

        Raises:
            TrainingDiverged: One of them is NaN or infinite.
        """
        try:
            self.measured.fetch(keep)
        except NotFinite as fault:
            step, loss = fault.step, fault.loss
            rates = zip(self.plan.groups, self.measured.rates_of(step), strict=True)
            shown = ", ".join(f"{group.name}: {rate:g}" for group, rate in rates)
            if self.run_log:
                self.run_log.event("diverged", step=step, loss=repr(loss))
            self._announce.divergence(step, str(fault), "stop")
            updates = self.batches.updates(self.session.extras.accumulate_steps, step + self.skipped)
            if self._weighs_nothing(next(updates)[1]):
                raise TrainingDiverged(f"{fault} at step {step}: {_NOTHING} {_GIVE_WEIGHTS}") from None
            raise TrainingDiverged(f"{fault} at step {step}, at rates {shown}. Try lower ones.") from None

    def _weighs_nothing(self, labels: Targets) -> bool:
        """Whether each image of an update is of a class whose weight in the loss is 0.

        Args:
            labels: Of the images.
        """
        loss = self.session.extras.loss
        if not isinstance(loss, ClassLoss) or loss.reduction == "sum" or 0 not in loss.class_weights:
            return False
        return labels.ndim == 1 and not np.array(loss.class_weights)[labels].any()

    def _end_epoch(self) -> tuple[float, float | None, float | None]:
        """Evaluate, and show reactive schedules the mean training loss of the epoch and the accuracy after it.

        Returns:
            The mean training loss, the accuracy and that of the moving average; None where it was not measured.
        """
        self._epoch_ended_at = self.step
        if not self._epoch_is_open:  # else it has been done, and this session has made no update
            self._note_still_groups()
        self._epoch_is_open = True
        right, average, further = self._evaluate() if self._evaluates else (None, None, {})
        loss = mean_loss(self.history.losses.numbers(self._first_of_epoch()))
        known = {} if right is None or math.isnan(right) else {"accuracy": right}
        metrics = {"loss": loss, **known, **further}
        seen = metrics if average is None or math.isnan(average) else {**metrics, EMA_ACCURACY: average}
        # Where every update was skipped there is nothing to react to, and where the run ends before its epoch does, the
        # epoch's own end is still to come: a run that goes on from here shows it then, as one that was not stopped.
        if right is not None and math.isfinite(loss) and self._ends_epoch():
            self._observe(seen, "epoch")
        self._epoch_is_open = False  # nothing of the user's is called any more
        if right is not None:
            self._keep_measured(right, average, further)
            self._watch(seen)
        if self.run_log:
            self.measured.collect()
            self.run_log.add(self.history)
            self.run_log.event("epoch", step=self.step, **metrics)
        if self.step == self.steps or self._bar.is_due():
            self._bar.show(self.session, self.history, self.metric_names)
        return loss, right, average

    def _observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """Let reactive schedules look at what was measured; what the first process's functions say holds for all."""
        seen: Metrics = metrics
        if self._asks_functions:
            here = LiveRates(self.plan.plan_at(max(self.step - 1, 0)))
            seen = self.processes.from_first(self.processes.agree(lambda: here.read(metrics, unit)))
        self.session.observe(seen, unit)

    def _watch(self, metrics: Mapping[str, float]) -> None:
        """Let the metric that decides about an early end be looked at, at the end of a whole epoch."""
        if self._watcher is None:
            return
        value = metrics[self._watcher.settings.metric]
        if not self._ends_epoch():
            self._watcher.look_within_epoch(self.step, value, self.history)
            return
        self._watcher.look(self.step, value, self.history, self.session)
        if self.step < self.steps and (why := self._watcher.reason(self.history)):
            self.ask_to_stop(why)

    def final_weights(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """The weights and their moving average: of the best epoch, where the run is to have these, else the last ones.

        The average is empty where there is none.
        """
        has_average = self.session.extras.ema_decay is not None
        if self._watcher is None or not self._watcher.restores(self.history, self.step):
            return self.session.weights(), self.session.ema_weights() if has_average else {}
        average = dict(self.history.best_average)
        if has_average and not average:  # its checkpoint is of a version that kept none
            average = self.session.ema_weights()
        return dict(self.history.best_weights), average

    def _note_still_groups(self) -> None:
        """Name each group once that was to be trained, and none of whose parameters has had a gradient."""
        without = set(self.session.without_gradient())
        if not without:
            return
        frozen = self.plan.plan_at(max(self.step - 1, 0)).frozen.union(
            parameter.name for parameter in self.plan.parameters if not parameter.requires_grad
        )
        noted = {event["group"] for event in self.events if event["event"] == NO_GRADIENT}
        for group in self.plan.groups:
            trained = set(group.parameters) - frozen
            if trained and trained <= without and group.name not in noted:
                why = "no gradient has reached any of its parameters so far; the loss does not depend on them"
                self._note(NO_GRADIENT, group=group.name, step=self.step, why=why)

    def _announce_epoch(self, loss: float, right: float | None, average: float | None) -> None:
        """Tell the callbacks of it, when all that the epoch's end changes is done: one that raises loses nothing."""
        if right is not None:
            self._announce.evaluation(right, average)
        self._announce.epoch(self._first_of_epoch() // self.in_epoch, loss)

    def _forget_open_epoch(self) -> None:
        """Forget what was measured where a shorter run ended within an epoch, and this one goes on from there."""
        if self.step < self.steps:
            self.history.cut_epoch(self.step, self.in_epoch, [TEST_LOSS, *self._metrics])

    def _first_of_epoch(self) -> int:
        """The first update of the epoch that the last update was of."""
        return (self.step - 1) // self.in_epoch * self.in_epoch

    def _evaluate(self) -> tuple[float, float | None, dict[str, float]]:
        """Measure the accuracy, that of the moving average, and the other metrics; the first process's hold for all."""
        measure = functools.partial(
            evaluate, self.session, self.batches, self._metrics, loss=self._test_loss, processes=self.processes
        )
        right, further = measure()
        average = None
        if self.session.extras.ema_decay is not None:
            average, of_average = measure(ema=True)
            further |= {f"ema {name}": value for name, value in of_average.items()}
        measured = right, average, further
        return self.processes.from_first(measured) if self._metrics else measured

    def _keep_measured(self, right: float, average: float | None, further: Mapping[str, float]) -> None:
        """Put what was measured into the history."""
        if not math.isnan(right):
            self.history.accuracies.add([right])
            if average is not None:
                self.history.ema_accuracies.add([average])
        self.history.log(self.step, further)

    def _note(self, what: str, /, **values: Any) -> None:
        """Keep an event of the run: in its result, in its folder and on the screen."""
        self.events.append({"event": what, **values})
        if self.run_log:
            self.run_log.event(what, **values)
        say(f"{what}: " + ", ".join(f"{name} {value}" for name, value in values.items()))

    def export_state(self) -> TrainingState:
        """Everything to go on from, the history too. Waits for the updates that were asked for."""
        self.fetch()
        self.measured.collect()
        return replace(self.session.export_state(), history=self.history.arrays())

    def _checkpoint(self) -> None:
        assert self.run_log is not None
        self._wants_checkpoint = False
        state = self.export_state()
        self.run_log.add(self.history)
        try:
            state.check_finite()
        except CheckpointError as error:  # the next update will show it
            say(f"after {self.step} updates {error} No checkpoint is written of that.")
            return
        if self._good is not None:
            self._good.add(state)
        at_end = self._ends_epoch() or self.step == self.steps
        is_rated = at_end and not self._epoch_is_open
        metric = self.run_log.rate(self.history, self.step, self._first_of_epoch()) if is_rated else None
        about = {
            "skipped": self.skipped,
            "rate_factor": self.guard.rate_factor,
            "events": [*self.events, *self._end_events()],
        }
        about["logged"] = list(self.history.logged)
        if self._epoch_is_open:
            about["epoch_is_open"] = True
        about["counted"] = {**self.guard.counted, "left_out": self._left_out_in_a_row}
        staying: list[int] = []
        if self._good is not None:
            staying = self._good.steps
            about["good"], about["back_at"] = staying, self._good.back_at
        path = self.run_log.checkpoint(state, metric, staying, **about)
        if self._are_many:
            gather_rest(state)
            path = self.processes.from_first(path)
        if path is not None:
            self._announce.checkpoint(path)

    def _callback_error(self, failed: CallbackFailed) -> CallbackError:
        """The error that a run ends with where a callback has raised, after its state has been brought to safety."""
        stop = "" if str(failed).endswith((".", "!", "?")) else "."
        where = f"{failed}{stop} The run ends after {self.step} updates."
        if self.run_log is None:
            return CallbackError(f"{where} Give checkpoints=... to keep the state of such a run.")
        if self._are_many:  # they have written a checkpoint together, if they could
            newest = "" if self.run_log.checkpoint_step == self.step else " from the newest checkpoint"
            return CallbackError(f"{where} To go on{newest}: {self.run_log.way_on}")
        if self._ends_epoch() and self._epoch_ended_at != self.step:
            with contextlib.suppress(LayeredLRError):  # of a metric: the run that goes on calls it again
                self._end_epoch()  # without which the checkpoint could not go on as this run would have
        if self.run_log.checkpoint_step != self.step:
            with contextlib.suppress(CallbackFailed):  # of another one, which is told of the checkpoint
                self._checkpoint()
        return CallbackError(f"{where} To go on: {self.run_log.way_on}")


def _without_ends(events: Iterable[Mapping[str, Any]], is_over: bool) -> list[dict[str, Any]]:
    """What happened before, without what is said of the end of a run: it is said again where the run ends.

    Args:
        events: In their order.
        is_over: Whether all updates are made: what had stopped the run then stays.
    """
    again = ENDED if is_over else (*ENDED, "stopped")
    return [dict(event) for event in events if event["event"] not in again]


def _cause_of(reason: BaseException) -> BaseException:
    """What a run ends with, for its callbacks: of one that raised, its own error."""
    is_of_callback = isinstance(reason, CallbackError) and reason.__cause__ is not None
    return reason.__cause__ if is_of_callback else reason  # type: ignore[return-value]  # of which there is one
