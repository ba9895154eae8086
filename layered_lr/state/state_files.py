"""A state as a folder of three files. The folder is complete or not there, and every later change is noticed.

``weights.safetensors`` holds the model's parameters and buffers by name, and can be read without this library.
``training.safetensors`` holds all other arrays. ``state.json`` holds everything else, and the SHA-256 digests of all
three. Reading them never unpickles or runs anything.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from layered_lr.arrays import Array, Arrays, DividedArray
from layered_lr.errors import CheckpointError
from layered_lr.files import UnreadableError, one_line, open_plain, read_plain
from layered_lr.outputs import clear_unfinished, describe_obstacle, make_temporary
from layered_lr.state.safetensors_files import (
    in_file_order,
    map_safetensors,
    read_safetensors,
    read_safetensors_part,
    write_safetensors,
)
from layered_lr.state.training_state import TrainingState
from layered_lr.strict_json import json_text, number_of

FORMAT = "layered_lr.TrainingState 1"
WEIGHTS, TRAINING, STATE = "weights.safetensors", "training.safetensors", "state.json"
FILES = frozenset((WEIGHTS, TRAINING, STATE))

_SLOT, _EMA, _RANDOM, _HISTORY, _UNSAVED = "slot:", "ema:", "random:", "history:", "unsaved:"
_CHUNK = 1 << 20
_MOST_HEADER_BYTES = 100_000_000  # of a .safetensors, as its own reader has it
_LARGE = 1 << 63  # of whole numbers: no count comes near it
_BEGINS = b'"format": "layered_lr.TrainingState '
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # constants of Linux's renameat2


def _is_number(value: object) -> bool:
    number = number_of(value)
    return isinstance(number, float) or (
        isinstance(number, int) and not isinstance(number, bool) and abs(number) < _LARGE
    )


def _are_reactions(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(seen, dict) and all(map(_is_number, seen.values())) for seen in value.values()
    )


def _is_scaler(value: object) -> bool:
    if value == {}:
        return True
    if not isinstance(value, dict) or set(value) != {"scale", "growth_tracker"}:
        return False
    scale, tracker = value["scale"], value["growth_tracker"]
    return _is_number(scale) and 0 < scale < math.inf and _is_number(tracker) and tracker >= 0 and tracker % 1 == 0


_IS_VALID: Mapping[str, Callable[[object], bool]] = {
    "step": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGE,
    "metric": lambda value: value is None or _is_number(value),
    "optimizer": lambda value: isinstance(value, str),
    "parameters": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "kinds": lambda value: isinstance(value, dict) and all(isinstance(kind, str) for kind in value.values()),
    "masks": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "reactions": _are_reactions,
    "scaler": _is_scaler,
    "about": lambda value: isinstance(value, dict),
    "sha256": lambda value: isinstance(value, dict),
}


def write_state(path: Path, state: TrainingState, metric: float | None = None) -> None:
    """Write a state to a folder, completely or not at all; when this returns, a power failure cannot lose it.

    Args:
        path: The folder; a state that is already there is replaced. Its parent must exist.
        state: The state to write.
        metric: How good the model is; saved with the state.

    Raises:
        CheckpointError: It cannot be written (a full disk, no permission). Then nothing has changed.
    """
    try:
        clear_unfinished(path.parent)
        temporary, handle = make_temporary(path.parent, is_folder=True)
        try:
            _fill(temporary, state, metric)
            _sync(temporary)
            _put(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)
    except OSError as error:
        raise CheckpointError(f"{path}: the state cannot be written: {error.strerror or error}.") from None


def check_replaceable(path: Path) -> None:
    """Refuse to write a state where it would replace something other than a state.

    Raises:
        CheckpointError: The path is no folder, or a folder that contains something other than a state.
    """
    kind = describe_obstacle(path)
    if kind == "a folder":
        if _holds_a_state(path):
            return
        kind = "a folder with something other than a state"
    if kind or path.exists():
        raise CheckpointError(
            f"{path}: there is {kind or 'a file'}, which is never written over; choose the name of a new folder."
        )


def _holds_a_state(folder: Path) -> bool:
    """Whether a folder is empty, or holds a state of this library and nothing else."""
    try:
        names = {file.name for file in folder.iterdir()}
        if not names:
            return True
        with open_plain(folder / STATE) as file:
            return names <= FILES and _BEGINS in file.read(256)
    except OSError:
        return False


def read_state(path: Path, is_mapped: bool = False) -> TrainingState:
    """Read a state that ``write_state`` wrote.

    Args:
        path: Its folder.
        is_mapped: Whether its arrays stay in their files, and are read where they are used.

    Raises:
        CheckpointError: The folder or one of its files is missing, incomplete, changed or of another state, or the
            state contains NaN or infinity. The message names the file and the reason.
    """
    about = read_about(path)
    for name in (WEIGHTS, TRAINING):
        _check_size(path / name)
    for name, digest in about["sha256"].items():
        if _hash_file(path / name) != digest:
            raise CheckpointError(
                f"{path / name}: differs from the file that was written: damaged, or of another state."
            )
    weights, training = (_load(path / name, is_mapped) for name in (WEIGHTS, TRAINING))
    slots: dict[str, dict[str, Array]] = {parameter: {} for parameter in about["parameters"]}
    for key, array in _select(_SLOT, training).items():
        slot, _, parameter = key.partition(":")
        slots.setdefault(parameter, {})[slot] = array
    try:
        state = TrainingState(
            step=about["step"],
            optimizer=about["optimizer"],
            weights=weights,
            slots=slots,
            reactions={
                group: {key: number_of(value) for key, value in seen.items()}
                for group, seen in about["reactions"].items()
            },
            ema=_select(_EMA, training),
            random=_select(_RANDOM, training),
            history=_select(_HISTORY, training),
            about=about["about"],
            unsaved=_select(_UNSAVED, training),
            masks=tuple(about.get("masks", ())),
            kinds=about.get("kinds", {}),
            scaler=about.get("scaler", {}),
        )
        state.check_finite()
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from None
    return state


def read_about(path: Path) -> dict[str, Any]:
    """Read ``state.json`` without the arrays.

    Raises:
        CheckpointError: The file is missing, damaged, changed, or of another format.
    """
    file = path / STATE
    try:
        table: dict[str, Any] = json.loads(read_plain(file))
        digest = table.pop("digest")
        if digest != hash_table(table):
            raise CheckpointError(f"{file}: differs from the file that was written: damaged or edited.")
        if table["format"] != FORMAT:
            raise CheckpointError(f"{file}: its format is {table['format']!r}; this version reads only {FORMAT!r}.")
        if set(table["sha256"]) != {WEIGHTS, TRAINING}:
            raise CheckpointError(
                f"{file}: it names the files {sorted(table['sha256'])}, but must name {sorted((WEIGHTS, TRAINING))}."
            )
        table.setdefault("masks", [])  # which states of earlier versions lack
        table.setdefault("kinds", {})
        table.setdefault("scaler", {})
        if wrong := [name for name, is_valid in _IS_VALID.items() if not is_valid(table[name])]:
            raise CheckpointError(f"{file}: not a readable state: {wrong[0]} cannot be {table[wrong[0]]!r:.80}.")
        table["metric"] = number_of(table["metric"])
        return table
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no saved state in it ({STATE} is missing).") from None
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file}: not a readable state: {one_line(error)}") from None


def gather_rest(state: TrainingState) -> None:
    """Gather what ``write_state`` has not: it may have failed, and only one of the processes calls it.

    Every process calls this after one has written the state, so that all of them have gathered the same.
    """
    for table in _tables(state):
        for _, array in in_file_order(table):
            if isinstance(array, DividedArray):
                if not array.is_written:
                    array.gather()
                array.is_written = False  # a later state may hold it too


def _tables(state: TrainingState) -> tuple[Arrays, Arrays]:
    """The arrays of the two files, by their names in them."""
    slots = {f"{slot}:{name}": a for name, slots in state.slots.items() for slot, a in slots.items()}
    parts: Mapping[str, Arrays] = {
        _SLOT: slots,
        _EMA: state.ema,
        _RANDOM: state.random,
        _HISTORY: state.history,
        _UNSAVED: state.unsaved,
    }
    return state.weights, {prefix + key: array for prefix, part in parts.items() for key, array in part.items()}


def _fill(folder: Path, state: TrainingState, metric: float | None) -> None:
    for name, arrays in zip((WEIGHTS, TRAINING), _tables(state), strict=True):
        _save(folder / name, arrays)
    table = {
        "format": FORMAT,
        "step": state.step,
        "metric": metric,
        "optimizer": state.optimizer,
        "parameters": list(state.slots),
        "masks": list(state.masks),
        "kinds": dict(state.kinds),
        "reactions": state.reactions,
        "scaler": dict(state.scaler),
        "about": state.about,
        "sha256": {name: _hash_file(folder / name) for name in (WEIGHTS, TRAINING)},
    }
    table = json.loads(json_text(table))  # the digest must be that of the table as it will be read
    with (folder / STATE).open("w", encoding="utf-8") as file:
        json.dump(table | {"digest": hash_table(table)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _save(file: Path, arrays: Arrays) -> None:
    write_safetensors(file, arrays)
    file.chmod(stat.S_IMODE(file.parent.stat().st_mode) & 0o666)  # the umask's, which safetensors does not ask
    _sync(file)


def read_history(path: Path) -> dict[str, Array]:
    """Read what a state says of the run's past, and none of its weights. Its digest is not checked: to show it only.

    Raises:
        CheckpointError: The file is missing or damaged, or no plain file.
    """
    file = path / TRAINING
    _check_size(file)
    try:
        return read_safetensors_part(file, _HISTORY)
    except UnreadableError as error:
        raise CheckpointError(f"{file}: not a readable .safetensors: {error}") from None


def _load(file: Path, is_mapped: bool) -> dict[str, Array]:
    try:
        return map_safetensors(file) if is_mapped else read_safetensors(file)
    except UnreadableError as error:
        raise CheckpointError(f"{file}: not a readable .safetensors: {error}") from None


def _put(folder: Path, path: Path) -> None:
    """Move the finished folder to its place, and only then remove the state that was there."""
    try:
        folder.rename(path)
    except OSError:
        if not path.exists():
            raise
        if _exchange(folder, path):
            return  # the old state is now in the temporary folder, which the caller removes
        old, handle = make_temporary(path.parent, is_folder=True)
        path.rename(old / path.name)
        folder.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that a kill cannot leave the place empty; False if the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _sync(path: Path) -> None:
    """Make the system write a file or folder to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_size(file: Path) -> None:
    """Refuse a file that is longer or shorter than it says itself, before all of it is read: it may be endless.

    Raises:
        CheckpointError: It is missing, cannot be read, or is no whole ``.safetensors``.
    """
    try:
        with open_plain(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length <= min(size, _MOST_HEADER_BYTES) else {}
            ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
            is_whole = size == 8 + length + max(ends, default=0)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: this file of the state is missing.") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        is_whole = False
    if not is_whole:
        raise CheckpointError(f"{file}: differs from the file that was written: damaged, or of another state.")


def _hash_file(file: Path) -> str:
    found = hashlib.sha256()
    try:
        with open_plain(file) as opened:
            while chunk := opened.read(_CHUNK):
                found.update(chunk)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: this file of the state is missing.") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}.") from None
    return found.hexdigest()


def hash_table(table: Mapping[str, Any]) -> str:
    """SHA-256 of a table of plain values, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _select(prefix: str, arrays: Arrays) -> dict[str, Array]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
