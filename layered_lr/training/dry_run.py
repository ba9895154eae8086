"""A dry run: one update, one batch of evaluation and one checkpoint, of which nothing is kept."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from layered_lr.arrays import Float32, Targets
from layered_lr.backend.session import Session
from layered_lr.console import say
from layered_lr.data import Batches
from layered_lr.errors import CheckpointError, TrainingDiverged, Unsupported
from layered_lr.state.state_files import read_state, write_state
from layered_lr.state.training_state import TrainingState
from layered_lr.training.callback import Callback
from layered_lr.training.checks import train_first_step
from layered_lr.training.events import UpdateEvent
from layered_lr.training.options import RunOptions
from layered_lr.training.result import Result
from layered_lr.training.run_folder import RECIPE, held_error
from layered_lr.training.run_mark import read_mark


class FewBatches(Batches):
    """The batches of a run, of which the test set has the first one alone.

    Args:
        batches: Of the run.
    """

    def __init__(self, batches: Batches) -> None:
        self.__dict__.update(batches.__dict__)
        self._whole = batches
        self.dataset = copy.copy(batches.dataset)
        object.__setattr__(self.dataset, "y_test", batches.dataset.y_test[: batches.batch_size])

    def updates(
        self, together: int, start: int = 0, channels_last: bool = False
    ) -> Iterator[tuple[Float32, Targets, int]]:
        """Yield the batches of every update, as the run's."""
        return self._whole.updates(together, start, channels_last)

    def test(self, channels_last: bool = False) -> Iterator[tuple[Float32, Targets, int]]:
        """Yield the first batch of the test set."""
        return islice(self._whole.test(channels_last), 1)


class OneSize(Batches):
    """The batches of a run, as if every update drew the same one of its sizes.

    Args:
        batches: Of the run.
        size: Pixels of a side of the training images.
    """

    def __init__(self, batches: Batches, size: int) -> None:
        self.__dict__.update(batches.__dict__)
        self._size = size

    def size_of_update(self, update: int) -> int | None:
        """The one size, whatever the update."""
        return self._size


def try_other_sizes(session: Session, batches: Batches, start: TrainingState) -> None:
    """Make the first update of a run at each of its sizes which that update did not have; each is undone.

    Args:
        session: Of the run.
        batches: Of the run.
        start: What the session stands at before its first update.

    Raises:
        SpecError: The model does not train on images of a size.
        TrainingDiverged: A loss is not finite.
    """
    for size in batches.sizes:
        if size == batches.size_of_update(0):
            continue
        session.import_state(start)
        together, wants = session.extras.accumulate_steps, session.wants_channels_last
        images, labels, parts = next(OneSize(batches, size).updates(together, 0, wants))
        begun = time.perf_counter()
        outcome = train_first_step(session, images, labels, parts)
        (loss,) = session.losses([outcome]).tolist() if outcome.made_update else (math.nan,)
        if outcome.made_update and not math.isfinite(loss):
            raise TrainingDiverged(f"the loss of an update on images of {size}x{size} is {loss}. Try lower rates.")
        found = f"loss {loss:.4g}" if outcome.made_update else f"no update: {outcome.why}"
        say(f"dry run: an update on images of {size}x{size} made too, {found}, {time.perf_counter() - begun:.2f} s.")


class StopAtOnce(Callback):
    """Ends a run after its first update."""

    def on_update(self, event: UpdateEvent) -> None:
        """Stop."""
        event.run.stop_unsaid()


def refuse_unusable(path: Path) -> None:
    """Refuse a folder that a run could not begin in. Nothing is made or written there.

    Raises:
        CheckpointError: It holds a run already, is no folder, or cannot be written to.
    """
    mark = read_mark(path)
    if (mark is not None and mark.spec is not None) or os.path.lexists(path / RECIPE):
        raise held_error(path)
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise CheckpointError(f"{path}: cannot be used as the run's folder: {there} is no folder to write to.")


class WrittenState(NamedTuple):
    """A state that was written to files and read again.

    Args:
        size_bytes: Of the files.
        seconds: Writing and reading took.
    """

    size_bytes: int
    seconds: float


def dry_options(options: RunOptions, folder: Path) -> RunOptions:
    """The options of a dry run: it writes into another folder, and its result nowhere.

    Args:
        options: Of the run.
        folder: Where to write instead.
    """
    checkpoints = options.checkpoints
    if checkpoints is not None and checkpoints.folder is not None:
        checkpoints = replace(checkpoints, folder=folder / "run")
    callbacks = (*options.callbacks, StopAtOnce())
    return replace(options, checkpoints=checkpoints, callbacks=callbacks, save=None, log=(), dry_run=False)


def write_and_read(state: TrainingState) -> WrittenState | str:
    """Write a state into a temporary folder and read it again; a sentence says why where that cannot be done."""
    with tempfile.TemporaryDirectory() as place:
        begun, folder = time.perf_counter(), Path(place) / "state"
        try:
            write_state(folder, state)
            again = read_state(folder)
        except (CheckpointError, Unsupported) as error:
            return str(error)
        if again.step != state.step or again.weights.keys() != state.weights.keys():
            return "what was read is not what was written."
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return WrittenState(size, time.perf_counter() - begun)


def say_what_was_done(result: Result, written: WrittenState | str, tested: int) -> None:
    """Say on the screen what a dry run has done.

    Args:
        result: Of the update that it made.
        written: Of the checkpoint.
        tested: How many test images it looked at.
    """
    plan = result.plan
    rates = ", ".join(f"{name}: {rates[0]:g}" for name, rates in result.rates.items())
    loss, seconds = float(result.losses[0]), result.first_step_seconds
    say(f"dry run: 1 of {plan.total_steps} updates made, loss {loss:.4g}, {seconds:.2f} s, at the rates {rates}.")
    say(f"dry run: {tested} test images evaluated.")
    if isinstance(written, str):
        say(f"dry run: no checkpoint can be written: {written}")
    else:
        size = written.size_bytes / 1e6
        say(f"dry run: a checkpoint of {size:.3g} MB written and read again in {written.seconds:.2f} s, and removed.")
