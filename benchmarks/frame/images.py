"""The images that benchmarks train on: a file that is given, or the one beside the checkout, or the embedded digits."""

from __future__ import annotations

import os
from pathlib import Path

import layered_lr as ll

DATA_VARIABLE = "LAYERED_LR_BENCH_DATA"
_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10-subset.npz"


def source() -> str:
    """What ``ll.load_dataset`` takes: a path, or ``"digits"``."""
    given = os.environ.get(DATA_VARIABLE)
    if given:
        return given
    return str(_BESIDE) if _BESIDE.exists() else "digits"


def described(data: str) -> str:
    """For a report: no folder of this machine."""
    return "the embedded digits at 32x32" if data == "digits" else f"real images ({Path(data).name})"


def part(data: str, train: int, test: int) -> ll.Dataset:
    """The first images of a data set, as a data set of its own.

    Args:
        data: A path or a name.
        train: Images to train on; all where there are fewer.
        test: Images to test on, likewise.
    """
    whole = ll.load_dataset(data)
    return ll.Dataset("part", whole.x_train[:train], whole.y_train[:train], whole.x_test[:test], whole.y_test[:test])
