"""What one backend did, step by step, and how two traces differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.files import read_archive
from layered_lr.parity.state_vector import Array, Layout


@dataclass(eq=False)
class ProbeTrace:
    """What a backend's optimizer did to the probe (``layered_lr.parity.probe``) on one rung.

    Args:
        weights: Every element after each update, the start first, shape (steps + 1, elements).
        rates: Each group's rate at each update, read off the framework, shape (steps, groups).
        parameters: Names of the probed parameters, in model order.
    """

    weights: Float64
    rates: Float64
    parameters: tuple[str, ...]


@dataclass(eq=False)
class Trace:
    """What one backend did.

    Args:
        backend: Its name.
        dtype: Of weights and arithmetic.
        layout: Of the weights.
        losses: Before each update, shape (steps,).
        rates: Read off the framework, shape (steps, groups).
        grad_norms: Of each group before clipping, shape (steps, groups).
        update_norms: L2 norm of each array's change, shape (steps, arrays).
        update_sizes: Largest change of an element of each array, shape (steps, arrays).
        rows: After how many updates ``weights`` were kept, ascending, 0 first.
        weights: Shape (rows, width).
        digests: Of all weights after each update, shape (steps,), 16 bytes each.
        batches: Digests of each update's images and labels, shape (steps,), 16 bytes each.
        probes: By rung.
        counts: Buffers that hold whole numbers, such as counts of batches, as they were at the end.
        loss_bits: How many last bits of the larger of 1 and the loss the framework's cross-entropy is off, and its
            gradient of the largest element, where the answer is known.
        ended: Why the run ended before its last step; empty where it did not.
        notes: What a reader should know.
        versions: Of the packages that took part.
        seconds: What the run took, probes left out.
    """

    backend: str
    dtype: str
    layout: Layout
    losses: Float64
    rates: Float64
    grad_norms: Float64
    update_norms: Float64
    update_sizes: Float64
    rows: NDArray[np.int64]
    weights: NDArray[Any]
    digests: NDArray[np.void]
    batches: NDArray[np.void]
    probes: dict[str, ProbeTrace] = field(default_factory=dict)
    counts: dict[str, NDArray[Any]] = field(default_factory=dict)
    loss_bits: float = 1.0
    ended: str = ""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return len(self.losses)

    @property
    def keeps_first_update(self) -> bool:
        """Whether ``weights[1]`` are those after the first update."""
        return len(self.rows) > 1 and int(self.rows[1]) == 1

    def last_bits(self, numbers: NDArray[Any]) -> Float64:
        """Return the last bit of each number in the run's dtype."""
        return np.spacing(np.abs(numbers).astype(self.dtype)).astype(np.float64)  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Write everything but the weights, which are in a file of the folder already (``weight_log``)."""
        about = {
            "backend": self.backend,
            "dtype": self.dtype,
            "layout": self.layout.arrays,
            "shape": self.weights.shape,
            "loss_bits": self.loss_bits,
            "ended": self.ended,
            "notes": self.notes,
            "versions": self.versions,
            "seconds": self.seconds,
        }
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        for rung, probe in self.probes.items():
            arrays |= {f"probe/{rung}/weights": probe.weights, f"probe/{rung}/rates": probe.rates}
            arrays[f"probe/{rung}/parameters"] = np.array(probe.parameters)
        arrays |= {f"count/{name}": array for name, array in self.counts.items()}
        np.savez(folder / "trace.npz", about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, folder: Path) -> Trace:
        """Read what ``save`` wrote; the weights stay in their file."""
        arrays = read_archive(folder / "trace.npz")
        about = json.loads(str(arrays["about"][()]))
        rungs = dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith("probe/"))
        return cls(
            backend=about["backend"],
            dtype=about["dtype"],
            layout=Layout(tuple(Array(*array) for array in about["layout"])),
            weights=weight_log(folder / WEIGHTS_FILE, tuple(about["shape"]), about["dtype"], "r"),
            probes={rung: load_probe(arrays, f"probe/{rung}/") for rung in rungs},
            counts={name.removeprefix("count/"): each for name, each in arrays.items() if name.startswith("count/")},
            loss_bits=about["loss_bits"],
            ended=about["ended"],
            notes=tuple(about["notes"]),
            versions=about["versions"],
            seconds=about["seconds"],
            **{name: arrays[name] for name in _ARRAYS},
        )


def load_probe(arrays: Mapping[str, NDArray[Any]], prefix: str) -> ProbeTrace:
    """Read a probe's three arrays."""
    names = tuple(arrays[f"{prefix}parameters"].tolist())
    return ProbeTrace(arrays[f"{prefix}weights"], arrays[f"{prefix}rates"], names)


_ARRAYS = (
    "losses", "rates", "grad_norms", "update_norms", "update_sizes", "rows", "digests", "batches",
)  # fmt: skip


WEIGHTS_FILE = "weights.bin"


def weight_log(path: Path | None, shape: tuple[int, ...], dtype: str, mode: Any = "w+") -> NDArray[Any]:
    """Where weights are kept: a file, or memory."""
    if path is None or 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, mode, shape=shape)


DIGEST = np.dtype("V16")
"""What ``digest`` returns."""


def digest(*arrays: NDArray[Any]) -> np.void:
    """16 bytes that tell arrays apart."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return np.void(state.digest())


class Differences(NamedTuple):
    """How two traces differ, at the steps that both made.

    Args:
        losses: Shape (steps,).
        rates: Shape (steps, groups).
        grad_norms: Shape (steps, groups).
        update_norms: Of each array's change, shape (steps, arrays).
        weights: The largest difference of an element of each array, shape (rows, arrays).
        probes: Of every element, by rung, shape (steps + 1, elements).
    """

    losses: Float64
    rates: Float64
    grad_norms: Float64
    update_norms: Float64
    weights: Float64
    probes: dict[str, Float64]


def differences(one: Trace, other: Trace) -> Differences:
    """The sizes of all differences; weights are read one row at a time, so that logs may be larger than memory."""
    steps = min(one.steps, other.steps)
    rows = zip(one.rows, other.rows, one.weights, other.weights, strict=False)
    apart = [one.layout.largest(subtract(mine, theirs)) for step, same, mine, theirs in rows if step == same <= steps]

    def series(name: str) -> Float64:
        found: Float64 = np.abs(subtract(getattr(one, name)[:steps], getattr(other, name)[:steps]))
        return found

    return Differences(
        losses=series("losses"),
        rates=series("rates"),
        grad_norms=series("grad_norms"),
        update_norms=series("update_norms"),
        weights=np.array(apart).reshape(len(apart), -1),
        probes=probe_differences(one.probes, other.probes),
    )


def subtract(one: NDArray[Any], other: NDArray[Any]) -> Float64:
    """One array minus the other in float64; 0 where both hold the same, also the same infinity or both NaN."""
    with np.errstate(invalid="ignore"):
        found: Float64 = one.astype(np.float64) - other
    if not np.isfinite(found).all():
        found[(one == other) | (np.isnan(one) & np.isnan(other))] = 0.0
    return found


RUN_SERIES = ("losses", "grad_norms", "update_norms", "weights")
"""What of ``Differences`` is of the run itself, and not of rates or probes."""


def probe_differences(one: dict[str, ProbeTrace], other: dict[str, ProbeTrace]) -> dict[str, Float64]:
    """How the probes' elements differ."""
    return {rung: np.abs(one[rung].weights - other[rung].weights) for rung in one if rung in other}
