"""The ``.npz`` file of a result: what is in it, and whether a file is one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

from layered_lr.arrays import Array
from layered_lr.files import open_plain

FORMAT: Final = "layered_lr.Result 3"
WEIGHT, EMA, NORMS, PLANNED = "weights/", "ema_weights/", "grad_norms/", "planned_rates/"
LOGGED, UNSAVED = "logged/", "unsaved/"


def holds_a_result(path: Path) -> bool:
    """Whether a file is a result that this library has saved, of any version."""
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive, archive.open("about.npy") as about:
            text = about.read(4096).replace(b"\0", b"")  # NumPy keeps text in four bytes a character
        return b'"format": "layered_lr.Result ' in text
    except Exception:  # for a damaged file, zipfile and zlib raise many kinds of errors
        return False


def check_arrays(arrays: dict[str, Array], groups: int) -> None:
    """Refuse arrays of other kinds or shapes than a run measures.

    Raises:
        ValueError: There are some.
    """
    steps = len(arrays["losses"])
    shapes: dict[str, tuple[int | None, ...]] = {
        "losses": (steps,),
        "rates": (steps, groups),
        "accuracies": (None,),
        "ema_accuracies": (None,),
        "grad_norms": (None,),
    }
    shapes |= {name: (None,) for name in arrays if name.startswith((NORMS, PLANNED))}
    shapes |= {name: (None, 2) for name in arrays if name.startswith(LOGGED)}
    for name, shape in shapes.items():
        array = arrays[name]
        fits = all(want in (None, has) for want, has in zip(shape, array.shape, strict=False))
        if array.dtype.kind not in "fiu" or array.ndim != len(shape) or not fits:
            raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape}")


def check_tables(about: dict[str, Any]) -> None:
    """Refuse tables of other kinds than a run writes.

    Raises:
        ValueError: There are some.
    """
    kinds: dict[str, type] = {"backend": str, "lowering": dict, "versions": dict, "options": dict, "events": list}
    for name, kind in kinds.items():
        if not isinstance(about[name], kind):
            raise ValueError(f"{name!r} is {about[name]!r:.40}")
    if set(about["lowering"]) != set(about["groups"]) or not all(isinstance(one, dict) for one in about["events"]):
        raise ValueError("what it says of its groups or events is not what a run says")


def arrays_under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
