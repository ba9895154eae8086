"""The mark file of a run's folder: it says that the folder is ours, which run it is, and what is left to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layered_lr.errors import CheckpointError
from layered_lr.files import read_plain
from layered_lr.outputs import open_whole
from layered_lr.state.state_files import hash_table
from layered_lr.strict_json import json_text

MARK = "layered_lr-run.json"
_FORMAT = "layered_lr.Run 1"


@dataclass(frozen=True)
class Mark:
    """What the mark says.

    It is the first file that is written, both when a run begins and when it goes on. So whatever the user asked for is
    still known after a kill at any later moment.

    Args:
        run: The run's identifier, which is in its checkpoints too.
        spec: Of what is left of the run, as plain tables; None before the run has begun.
        options: Of the run, as plain tables.
        unwritten: The names of options that are given and cannot be written down.
        has_checkpoints: Whether one has been written.
        digests: SHA-256 of the files that describe the run, by their names.
    """

    run: str
    spec: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    unwritten: tuple[str, ...] = ()
    has_checkpoints: bool = False
    digests: dict[str, str] = field(default_factory=dict)


def read_mark(folder: Path) -> Mark | None:
    """The mark of a folder; None where there is none, or one that is damaged."""
    try:
        table = json.loads(read_plain(folder / MARK))
        digest = table.pop("digest")
        if digest != hash_table(table) or table.pop("format") != _FORMAT:
            return None
        mark = Mark(**{**table, "unwritten": tuple(table["unwritten"])})
        is_good = (
            isinstance(mark.run, str)
            and isinstance(mark.spec, dict | None)
            and isinstance(mark.options, dict)
            and isinstance(mark.digests, dict)
        )
        return mark if is_good else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def refuse_other_version(folder: Path) -> None:
    """Refuse the folder of a run that another version has made, in a format that this one does not know.

    A damaged mark is no such thing: its digest does not fit.

    Raises:
        CheckpointError: It is one.
    """
    try:
        table = json.loads(read_plain(folder / MARK))
        digest = table.pop("digest")
        name = table["format"]
        is_other = digest == hash_table(table) and isinstance(name, str) and name != _FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if is_other:
        raise CheckpointError(
            f"{folder}: its format is {name!r:.60}; this version reads {_FORMAT!r}. Use the version of layered_lr that "
            "has made the run."
        )


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the mark of a folder, whole or not at all.

    Raises:
        CheckpointError: It cannot be written.
    """
    table = json.loads(json_text({"format": _FORMAT, **asdict(mark)}))
    try:
        with open_whole(folder / MARK) as file:
            file.write(json.dumps({**table, "digest": hash_table(table)}, indent=1).encode())
    except OSError as error:
        raise CheckpointError(f"{folder / MARK}: cannot be written: {error.strerror or error}.") from None
