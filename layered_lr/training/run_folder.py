"""The folder of a run: its recipe and plan, its metrics and events as they come, and its checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from layered_lr.errors import CheckpointError
from layered_lr.files import read_plain
from layered_lr.outputs import clear_unfinished, describe_obstacle
from layered_lr.printed import csv_cell
from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.strict_json import json_text
from layered_lr.training.folder_lock import FolderLock
from layered_lr.training.in_file import command_to_go_on
from layered_lr.training.leftovers import Leftovers
from layered_lr.training.row_file import RowFile, append, open_to_append
from layered_lr.training.run_mark import MARK, Mark, read_mark, refuse_other_version, write_mark

RECIPE, PLAN, PLAN_TEXT, METRICS, LOGGED = "recipe.toml", "plan.json", "plan.txt", "metrics.csv", "logged.csv"
EVENTS, LOCK, CHECKPOINTS, REPORT = "events.jsonl", "lock", "checkpoints", "report.txt"
_OURS = (RECIPE, PLAN, PLAN_TEXT, METRICS, LOGGED, EVENTS, LOCK, CHECKPOINTS, REPORT)
NAMES = frozenset({*_OURS, MARK})
"""What a run keeps in its folder."""
_OF_OLD_RUNS = {"run", "versions", "spec", "parameters"}  # in the plan.json of runs that were made before the mark was


def held_error(path: Path) -> CheckpointError:
    """The error of a new run in a folder that holds one already."""
    return CheckpointError(f"{path}: holds a run already. Go on with it ({way_on(path)}), or choose another folder.")


def way_on(path: Path) -> str:
    """The command that goes on with the run of a folder, as far as its mark says what it needs."""
    mark = read_mark(path) or Mark("")
    return command_to_go_on(path, mark.options, mark.spec)


class RunFolder:
    """A run's folder, locked as long as this object is open, so that one run at a time writes there.

    It is ours from the moment on when our mark is in it. A folder without the mark is taken only where nothing in it
    has a name that we would write to; what else is there is left alone. The object is a context manager.

    Args:
        path: The folder; made where it is missing.

    Attributes:
        path: The folder, as an absolute path.
        said: The folder as it was given.

    Raises:
        CheckpointError: Another process writes there, it holds files of somebody else under our names, or it cannot be
            made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.said = path
        self.path = path = path.absolute()  # a callback may change the current folder
        self._metrics, self._logged = RowFile(path / METRICS), RowFile(path / LOGGED)
        self._leftovers, self._is_refused = Leftovers(path), True
        with contextlib.ExitStack() as opened:
            opened.callback(self._clear_if_refused)
            try:
                path.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, self._handle)
                _refuse_others(path)
                refuse_other_version(path)
                self._lock = FolderLock(path / LOCK)
                opened.callback(self._lock.close)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: cannot be used as the run's folder: {error.strerror or error}."
                ) from None
            opened.callback(self._clear_if_refused)  # again: with the lock, so that nobody else's files are meant
            clear_unfinished(path)
            self.mark_is_whole = (found := read_mark(path)) is not None
            self.mark = found or Mark(str(self.described().get("run") or uuid.uuid4().hex))
            if not self.holds_a_run:
                there = {file.name for file in path.iterdir()}
                self._leftovers.expect([LOCK, MARK, *(name for name in _OURS if name not in there)])
            if found is None:
                self.write_mark(self.mark)
            opened.callback(self._logged.close)
            opened.callback(self._metrics.close)
            self._opened = opened.pop_all()
        self._is_refused = False

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let others write there."""
        self._opened.close()

    def withdraw(self) -> None:
        """Close the folder, and remove what a refused run has made there; nothing of a run that had begun before."""
        self._is_refused = True
        self.close()

    def _clear_if_refused(self) -> None:
        if self._is_refused:
            self._leftovers.remove()

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun there already."""
        return self.mark.spec is not None or os.path.lexists(self.path / RECIPE)

    def write_mark(self, mark: Mark) -> None:
        """Write down what the run is to do.

        Raises:
            CheckpointError: It cannot be written.
        """
        self.check_there()
        write_mark(self.path, mark)
        self.mark = mark

    def described(self) -> dict[str, Any]:
        """What ``plan.json`` says; empty where it is missing or no such table."""
        return read_table(self.path / PLAN)

    def checkpoints(self, keep: int, keep_best: bool) -> CheckpointFolder:
        """The run's checkpoints. What a killed run left unfinished is removed.

        Raises:
            CheckpointError: What is there under their name is no folder.
        """
        kind = describe_obstacle(self.path / CHECKPOINTS)
        if kind not in ("", "a folder"):
            raise CheckpointError(
                f"{self.path / CHECKPOINTS}: is {kind}, which is not followed. Put a folder in its place, or choose "
                "another folder for the run."
            )
        found = CheckpointFolder(self.path / CHECKPOINTS, keep, keep_best)
        found.clean()
        return found

    def check_there(self) -> None:
        """Refuse to write where the folder no longer is.

        Raises:
            CheckpointError: It has been moved or removed since it was opened.
        """
        try:
            is_there = os.path.samestat(self.path.stat(), os.fstat(self._handle))
        except OSError:
            is_there = False
        if not is_there:
            raise CheckpointError(
                f"{self.path}: the run's folder has been moved or removed while the run goes on; nothing more is "
                "written there."
            )

    def event(self, what: str, /, **values: Any) -> None:
        """Append a line to ``events.jsonl``; it is on the disk when this returns.

        Raises:
            CheckpointError: It cannot be written.
        """
        line = json_text({"event": what, **values}) + "\n"
        with self._writing(EVENTS), open_to_append(self.path / EVENTS) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            begun = file.read(1) not in (b"", b"\n")  # by a run that was killed
            append(file, ("\n" * begun + line).encode())
            os.fsync(file.fileno())

    def begin_metrics(self, columns: Sequence[str], rows: Iterable[Sequence[float]]) -> bool:
        """Open ``metrics.csv`` with what was measured before, and nothing else.

        Args:
            columns: The names of the row's numbers after ``step``.
            rows: ``step`` and its numbers, of each update before the next one.

        Returns:
            Whether the file that was there began with them.

        Raises:
            CheckpointError: It cannot be written.
        """
        with self._writing(METRICS):
            return self._metrics.begin(_with_header(["step", *columns], map(_every_digit, rows)))

    @property
    def has_metrics_open(self) -> bool:
        """Whether metrics can be added."""
        return self._metrics.is_open

    def add_metrics(self, rows: Iterable[Sequence[float]]) -> None:
        """Append rows of ``step`` and its numbers, with every digit; the system has them when this returns.

        Raises:
            CheckpointError: They cannot be written; then none of them is there.
        """
        with self._writing(METRICS):
            self._metrics.add(map(_every_digit, rows))

    @property
    def has_logged(self) -> bool:
        """Whether callbacks have logged numbers there."""
        return os.path.lexists(self.path / LOGGED)

    def begin_logged(self) -> None:
        """Open ``logged.csv`` without any rows.

        Raises:
            CheckpointError: It cannot be written.
        """
        with self._writing(LOGGED):
            self._logged.begin([["step", "name", "value"]])

    def add_logged(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Append rows of updates made, name and number; the system has them when this returns.

        Raises:
            CheckpointError: They cannot be written; then none of them is there.
        """
        if not self._logged.is_open:
            self.begin_logged()
        with self._writing(LOGGED):
            self._logged.add((step, csv_cell(name), repr(value)) for step, name, value in rows)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        self.check_there()
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"{self.path / name}: cannot be written: {error.strerror or error}.") from None


def check_holds_a_run(path: Path) -> None:
    """Refuse a folder that holds no run, without writing anything.

    Raises:
        CheckpointError: There is no such folder, it cannot be read, it holds no run, or one of another version.
    """
    try:
        names = [file.name for file in path.iterdir()]
    except OSError as error:
        raise CheckpointError(f"{path}: holds no run ({error.strerror or error}). {_GIVE}") from None
    refuse_other_version(path)
    mark = read_mark(path)
    if not ((mark is not None and mark.spec is not None) or RECIPE in names or MARK in names):
        raise CheckpointError(f"{path}: holds no run ({RECIPE} is missing). {_GIVE}")


_GIVE = "Give the folder that the run was started with: its checkpoints=... (--checkpoint-dir)."


def _refuse_others(path: Path) -> None:
    """Refuse a folder in which somebody else has files under the names that a run writes to."""
    names = {file.name for file in path.iterdir()}
    if MARK in names or (RECIPE in names and read_table(path / PLAN).keys() >= _OF_OLD_RUNS):
        return
    if LOCK in names and _is_left_lock(path / LOCK):
        names.remove(LOCK)
    if theirs := [name for name in _OURS if name in names]:
        raise CheckpointError(
            f"{path}: is not the folder of a run, and has {', '.join(theirs)} in it, which a run would write over. "
            "Choose a new folder."
        )


def _is_left_lock(file: Path) -> bool:
    """Whether a lock file is one that a run left which was killed before it could mark the folder."""
    try:
        said = read_plain(file, 200)
    except OSError:
        return False
    return not said or said.startswith(b"process ")


def read_table(file: Path) -> dict[str, Any]:
    """A JSON file's table; empty where it is missing, or no table."""
    try:
        found = json.loads(read_plain(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _with_header(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield header
    yield from rows


def _every_digit(row: Sequence[float]) -> Sequence[Any]:
    step, *rest = row
    return [int(step), *map(repr, map(float, rest))]
