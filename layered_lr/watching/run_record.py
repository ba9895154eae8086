"""What a run's folder says of its run: read without a change, and without importing or running anything."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layered_lr.errors import CheckpointError, LayeredLRError
from layered_lr.files import one_line, read_plain
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import plan_from_dict
from layered_lr.strict_json import number_of
from layered_lr.training.best_weights import ENDED
from layered_lr.training.metric_names import TEST_LOSS
from layered_lr.training.run_folder import EVENTS, LOCK, METRICS, PLAN, check_holds_a_run
from layered_lr.training.run_mark import MARK, read_mark
from layered_lr.watching.metrics_file import Metrics, read_metrics

_MOST_EVENTS = 1 << 27  # bytes


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run, as its folder tells of it.

    Args:
        path: The folder.
        state: ``"running"``, ``"finished"`` or ``"stopped"``.
        note: Why it ended early, or what is wrong with a file; empty where there is nothing to say.
        options: Of the run, as plain tables.
        about: What ``plan.json`` says.
        plan: The plan. A rate that needs a function of somebody else's cannot be computed.
        metrics: Losses and rates of the updates.
        events: What happened, in order.
        accuracies: Of the test set, by the number of updates made.
        test_losses: Likewise, of a run whose targets are no class numbers.
        written_at: When something was last written, in seconds since 1970.
    """

    path: Path
    state: str
    note: str
    options: Mapping[str, Any]
    about: Mapping[str, Any]
    plan: Plan
    metrics: Metrics
    events: Sequence[Mapping[str, Any]] = field(repr=False)
    accuracies: Mapping[int, float] = field(repr=False)
    test_losses: Mapping[int, float] = field(repr=False)
    written_at: float = 0.0

    @property
    def updates(self) -> int:
        """Updates whose loss is written down."""
        return self.metrics.updates

    @property
    def versions(self) -> Mapping[str, Any]:
        """Of this library, Python and the framework."""
        found = self.about.get("versions")
        return found if isinstance(found, Mapping) else {}


def read_record(path: Path, *, only_last: bool = False, trust: bool = False) -> RunRecord:
    """Read the folder of a run.

    Args:
        path: The folder.
        only_last: Of a long run, read the numbers of the last updates only.
        trust: Whether functions that the plan names may be imported, when a rate is computed.

    Raises:
        CheckpointError: It holds no run, or one whose files are damaged; the message has one line.
    """
    check_holds_a_run(path)
    mark = read_mark(path)
    if mark is None and os.path.lexists(path / MARK):
        raise CheckpointError(f"{path / MARK}: is damaged, so that it is not known what this run is.")
    about = _read_about(path)
    try:
        plan = plan_from_dict({name: about[name] for name in _PLAN_KEYS}, trust=trust)
    except (LayeredLRError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path / PLAN}: is damaged, or is no plan: {one_line(error)}") from None
    metrics = read_metrics(path / METRICS, [group.name for group in plan.groups], only_last=only_last)
    events, note = _read_events(path / EVENTS)
    ends = [event for event in events if event["event"] not in ENDED]
    running = is_being_written(path)
    options: Mapping[str, Any] = {} if mark is None else mark.options
    state = _state(running, metrics.updates, plan.total_steps, ends)
    return RunRecord(
        path=path,
        state=state,
        note="; ".join(filter(None, [_why_it_ended(ends, state), metrics.damage, note])),
        options=options,
        about=about,
        plan=plan,
        metrics=metrics,
        events=events,
        accuracies=_measured(events, "accuracy", plan),
        test_losses=_measured(events, TEST_LOSS, plan),
        written_at=_newest_change(path),
    )


_PLAN_KEYS = ("spec", "parameters", "total_steps", "steps_per_epoch")


def _read_about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_plain(path / PLAN))
    except FileNotFoundError:
        raise CheckpointError(f"{path / PLAN}: is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path / PLAN}: is damaged, or cannot be read: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path / PLAN}: is damaged: it holds no table.")
    return found


def _read_events(file: Path) -> tuple[list[dict[str, Any]], str]:
    """The events, and what is wrong with their file. A last line that a kill has cut off is left out."""
    try:
        lines = read_plain(file, _MOST_EVENTS).split(b"\n")
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{EVENTS} cannot be read: {error.strerror or error}"
    found: list[dict[str, Any]] = []
    damaged = 0
    for number, line in enumerate(lines):
        event = _event(line)
        if event is not None:
            found.append(event)
        elif line.strip() and number < len(lines) - 1:
            damaged += 1
    return found, f"{EVENTS}: {damaged} lines are damaged" if damaged else ""


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _measured(events: Sequence[Mapping[str, Any]], name: str, plan: Plan) -> dict[int, float]:
    """A number of each evaluation, by the updates made; those that the run has forgotten are left out.

    Args:
        events: What happened.
        name: Of the number.
        plan: Of the run.
    """
    found: dict[int, float] = {}
    for event in events:
        step = event.get("to" if event["event"] == "rolled back" else "step")
        if not isinstance(step, int):
            continue
        if event["event"] in ("rolled back", "resumed"):
            found = {at: value for at, value in found.items() if at < step or (at == step and _stays(step, plan))}
        number = number_of(event.get(name))
        if event["event"] == "epoch" and isinstance(number, int | float) and math.isfinite(number):
            found[step] = float(number)
    last = max(found, default=0)
    return {at: value for at, value in found.items() if at == last or _ends_epoch(at, plan)}


def _stays(step: int, plan: Plan) -> bool:
    """Whether what was measured after an update counts in a run that goes on from there (``History.cut_epoch``)."""
    return step == plan.total_steps or _ends_epoch(step, plan)


def _ends_epoch(step: int, plan: Plan) -> bool:
    return not plan.steps_per_epoch or step % plan.steps_per_epoch == 0


def _state(running: bool, updates: int, total: int | None, events: Sequence[Mapping[str, Any]]) -> str:
    if running:
        return "running"
    # A callback that stops a run ends it as it should, and says why; after a signal the run is to go on.
    was_stopped = bool(events) and events[-1]["event"] == "stopped" and "signal" not in events[-1]
    return "finished" if was_stopped or (total is not None and updates >= total) else "stopped"


_ENDS = ("stopped", "diverged")


def _why_it_ended(events: Sequence[Mapping[str, Any]], state: str) -> str:
    last = events[-1] if events else {}
    if state == "running" or last.get("event") not in _ENDS:
        return ""
    if last["event"] == "diverged":
        return f"diverged at update {last.get('step')}: the loss is {last.get('loss')}"
    return str(last["why"]) if "why" in last else f"stopped by {last.get('signal', 'somebody')}"


def is_being_written(path: Path) -> bool:
    """Whether a process writes to a run's folder now."""
    try:
        handle = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _newest_change(path: Path) -> float:
    return max(_changed_at(path / name) for name in (MARK, PLAN, METRICS, EVENTS))


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def find_runs(folder: Path, most_levels: int = 4) -> Iterator[Path]:
    """The folders of runs in a folder, itself among them; links are not followed.

    Args:
        folder: Where to look.
        most_levels: How deep.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror or error}.") from None
    if any(entry.name == MARK for entry in entries):
        yield folder
        return
    for entry in entries:
        if most_levels and entry.is_dir(follow_symlinks=False):
            try:
                yield from find_runs(Path(entry.path), most_levels - 1)
            except CheckpointError:  # of another user's, which is no business of this one
                continue
