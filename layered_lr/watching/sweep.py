"""Sweeps: every run that a recipe with lists stands for, in processes; a second start goes on with what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import tomli_w

from layered_lr.console import say
from layered_lr.counts import whole_number
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import as_path, read_plain
from layered_lr.outputs import write_whole
from layered_lr.reports.tables import ReportTable
from layered_lr.strict_json import json_text
from layered_lr.training.folder_lock import FolderLock
from layered_lr.training.recipe import read_recipe_table
from layered_lr.training.run_mark import MARK, read_mark
from layered_lr.training.signals import Stop
from layered_lr.watching.run_list import RunSummary, best_of, run_table, summary_of
from layered_lr.watching.sweep_axes import Variant, find_variants
from layered_lr.yes_or_no import check_yes_or_no

_FORMAT = "layered_lr.Sweep 1"
SWEEP, RECIPES, OUTPUT, LOCK = "sweep.json", "recipes", "output", "lock"
_LOOK_SECONDS = 0.1
_MOST_JOBS = 1024


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to: a table as text, and each run as data.

    Args:
        folder: Where the runs are.
        runs: In the order of the lists' values.
        settings: Of each run, its values by their names.

    Example:
        >>> import layered_lr as ll
        >>> def best_settings(recipe):
        ...     done = ll.sweep(recipe, into="runs/rates", jobs=2)
        ...     return done.settings[done.runs.index(done.best)]
    """

    folder: Path
    runs: tuple[RunSummary, ...]
    settings: tuple[dict[str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether every run has come to its end."""
        return all(run.state == "finished" for run in self.runs)

    @property
    def best(self) -> RunSummary | None:
        """The run with the highest accuracy, the first of several; None where no run has one.

        Of runs whose targets are no class numbers it is the one with the lowest test loss.
        """
        accuracies = [(run.best_accuracy, run) for run in self.runs if run.best_accuracy is not None]
        if accuracies:
            return max(accuracies, key=lambda pair: pair[0])[1]
        losses = [(run.best_test_loss, run) for run in self.runs if run.best_test_loss is not None]
        return min(losses, key=lambda pair: pair[0])[1] if losses else None

    def to_json(self) -> str:
        """The runs as JSON: a list of tables."""
        rows = [{"settings": own, **asdict(run)} for own, run in zip(self.settings, self.runs, strict=True)]
        return json_text(rows, indent=1)

    def __str__(self) -> str:
        table = run_table(self.runs)
        names = list(self.settings[0]) if self.settings else []
        rows = [
            [row[0].partition("-")[0], *own.values(), *row[1:]]
            for row, own in zip(table.rows, self.settings, strict=True)
        ]
        text = ReportTable([table.headers[0], *names, *table.headers[1:]], rows, table.numbers).text()
        best = self.best
        return text if best is None else f"{text}\n{best_of(best)}: {self.folder / best.name}"


def sweep(recipe: str | Path, into: str | Path, jobs: int = 1, *, trust: bool = False) -> Sweep:
    """Make every run that a recipe with lists stands for, each in a process of its own.

    ``lr = [0.1, 0.01]`` and ``seed = [0, 1]`` make four runs. Each has a folder in ``into``, its recipe in
    ``into/recipes`` and what it printed in ``into/output``. Called again, ``sweep`` goes on with what is missing:
    finished runs stay, stopped ones go on from their checkpoints. Ctrl-C lets each run write a checkpoint first.

    Args:
        recipe: A TOML file, or the name of a ready recipe, with lists where single values belong.
        into: The folder of the sweep; made where it is missing.
        jobs: How many runs go on at a time.
        trust: Whether code that the recipe names may be imported.

    Raises:
        SpecError: The recipe has no lists, one of its runs cannot be, or ``jobs`` is no whole number >= 1.
        CheckpointError: ``into`` holds something else, or another process makes the sweep.

    Example:
        >>> import layered_lr as ll
        >>> def rates(recipe):
        ...     return ll.sweep(recipe, into="runs/rates", jobs=2).to_json()
    """
    check_yes_or_no("sweep", "trust", trust)
    at_once = whole_number("sweep: jobs", jobs, 1)
    if at_once > _MOST_JOBS:
        raise SpecError(f"sweep: jobs={jobs}: must be a whole number from 1 to {_MOST_JOBS}.")
    folder = as_path("sweep: into", into)
    table = read_recipe_table(recipe)
    variants = find_variants(table)
    with _opened(folder, table):
        _make_all(folder, variants, at_once, trust)
        runs = tuple(_summary(folder, variant) for variant in variants)
    return Sweep(folder, runs, tuple(variant.settings for variant in variants))


@contextlib.contextmanager
def _opened(folder: Path, table: dict[str, Any]) -> Iterator[None]:
    """The folder of the sweep, locked, with what the sweep is of written down.

    Raises:
        CheckpointError: It holds something else, or cannot be written to.
    """
    about = json.loads(json_text({"format": _FORMAT, "recipe": table}))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {file.name for file in folder.iterdir()} - {LOCK}
        if names and SWEEP not in names:
            raise CheckpointError(
                f"{folder}: is not the folder of a sweep, and has {min(names)} in it. Choose a new folder."
            )
        lock = FolderLock(folder / LOCK)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be the folder of a sweep: {error.strerror or error}.") from None
    try:
        if SWEEP in names:
            _check_same(folder / SWEEP, about)
        else:
            write_whole(folder / SWEEP, [json_text(about, indent=1).encode()])
        yield
    finally:
        lock.close()


def _check_same(file: Path, about: dict[str, Any]) -> None:
    try:
        found = json.loads(read_plain(file))
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(
            f"{file}: is damaged, so that it is not known what was swept. Choose a new folder."
        ) from None
    if found != about:
        raise CheckpointError(
            f"{file.parent}: holds the sweep of another recipe. Choose a new folder, or give the recipe as it was."
        )


def _make_all(folder: Path, variants: Sequence[Variant], jobs: int, trust: bool) -> None:
    """Make what is missing, so many at a time; a signal stops all of them, each with a checkpoint."""
    for name in (RECIPES, OUTPUT):
        try:
            (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be made: {error.strerror or error}.") from None
    missing = [variant for variant in variants if _summary(folder, variant).state != "finished"]
    if len(missing) < len(variants):
        say(f"sweep: {len(variants) - len(missing)} of {len(variants)} runs are finished already.")
    waiting = iter(missing)
    going: dict[subprocess.Popen[bytes], Variant] = {}
    done = len(variants) - len(missing)
    with Stop() as signals:
        try:
            while True:
                while len(going) < jobs and signals.signal is None and (chosen := next(waiting, None)) is not None:
                    going[_start(folder, chosen, jobs, trust)] = chosen
                if not going or signals.signal is not None:
                    break
                for process in _ended(going):
                    done += 1
                    say(f"sweep: {done} of {len(variants)}: {_told(folder, going.pop(process), process.returncode)}")
        finally:
            for process in going:
                process.terminate()
            for process in going:
                process.wait()
        signals.obey()


def _ended(going: dict[subprocess.Popen[bytes], Variant]) -> list[subprocess.Popen[bytes]]:
    """Those that have ended; waits a little where none has."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        next(iter(going)).wait(_LOOK_SECONDS)
    return [process for process in going if process.poll() is not None]


def _start(folder: Path, variant: Variant, jobs: int, trust: bool) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it."""
    run, recipe = folder / variant.name, folder / RECIPES / f"{variant.name}.toml"
    write_whole(recipe, [tomli_w.dumps(variant.recipe).encode()])
    mark = read_mark(run)
    is_begun = os.path.lexists(run / MARK) and (mark is None or mark.spec is not None)
    words = ["resume", str(run)] if is_begun else ["run", "--recipe", str(recipe), "--checkpoint-dir", str(run)]
    command = [sys.executable, "-m", "layered_lr", *words, "--no-progress", *(["--trust"] if trust else [])]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    with _output(folder / OUTPUT / f"{variant.name}.txt") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env={**threads, **os.environ}
        )


def _output(path: Path) -> IO[bytes]:
    from layered_lr.training.row_file import open_to_append

    try:
        return open_to_append(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}.") from None


def _told(folder: Path, variant: Variant, code: int) -> str:
    run = _summary(folder, variant)
    measured = f", {best}" if (best := best_of(run)) else ""
    why = "" if code == 0 else f" (exit code {code}, see {folder / OUTPUT / variant.name}.txt)"
    return f"{variant.name} {run.state}{measured}{why}"


def _summary(folder: Path, variant: Variant) -> RunSummary:
    path = folder / variant.name
    if not os.path.lexists(path / MARK):
        return RunSummary(variant.name, "missing", "", "", 0, None, None, None, None, "", _last_line(folder, variant))
    return summary_of(path, folder)


def _last_line(folder: Path, variant: Variant) -> str:
    """What a run said last that could not begin."""
    try:
        lines = read_plain(folder / OUTPUT / f"{variant.name}.txt").decode(errors="replace").split("\n")
    except (OSError, LayeredLRError):
        return ""
    return next((line.removeprefix("layered-lr: ") for line in reversed(lines) if line.strip()), "")
