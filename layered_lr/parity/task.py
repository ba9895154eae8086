"""The work that every backend of a comparison does, in a form that can be sent to another process."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from layered_lr.errors import SpecError
from layered_lr.models.zoo import is_catalogued
from layered_lr.parity.probe import rungs_of
from layered_lr.spec.spec import Spec
from layered_lr.training.grouped_options import Precision
from layered_lr.training.options import RunOptions

MAIN = "__layered_lr_main__"


@dataclass(frozen=True, eq=False)
class Task:
    """A run to be traced.

    Args:
        spec: What to train with.
        options: How; the length of the run is in them, and the model is of the backend's framework.
        steps: How many updates to make, the run's length or fewer.
        log_bytes: How much room there is for the weights after each update.
        resume_at: After which update the run is stopped and goes on from a checkpoint's files; None lets it run.
        probe_steps: How many updates the probes make; None is as many as the run.
        probed_of_each_kind: How many parameters of each kind the probes have; None is all of them.
        float32_norms: Whether torch's batch normalisations take ``eps`` and ``momentum`` as float32 holds them, as
            OneFlow's do.
    """

    spec: Spec
    options: RunOptions
    steps: int
    log_bytes: int = 1 << 34
    resume_at: int | None = None
    probe_steps: int | None = None
    probed_of_each_kind: int | None = None
    float32_norms: bool = False

    @property
    def probed_steps(self) -> int:
        """How many updates the probes make."""
        return self.steps if self.probe_steps is None else self.probe_steps

    @property
    def has_masks_by_place(self) -> bool:
        """Whether the library's dropout masks belong to places in a batch: images in another order get other masks."""
        return is_catalogued(self.options.model) and self.options.dropout != 0

    @property
    def may_have_float64(self) -> bool:
        """Whether beside this run there may be the same in float64: not where it is, or where it rounds to bfloat16."""
        precision = self.options.precision
        return precision.dtype == "float32" and precision.autocast is None

    def in_float64(self) -> Task:
        """The same run in float64, with the constants of batch normalisations as OneFlow's kernel has them."""
        options = replace(self.options, precision=Precision("float64"))
        return replace(self, options=options, float32_norms=True)

    @property
    def rungs(self) -> int:
        """How many rungs the probe of the spec has."""
        return len(rungs_of(self.spec, np.array([self.options.accumulate_steps])))

    def kept_steps(self, width: int) -> list[int]:
        """After which updates the weights are kept: all of them if there is room, else evenly; 0 and the last one too.

        Args:
            width: How many numbers the weights are; each may take 8 bytes.
        """
        rows = min(self.steps + 1, max(2, self.log_bytes // (8 * max(width, 1))))
        return sorted({round(place * self.steps / (rows - 1)) for place in range(rows)} if rows > 1 else {0})


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        """What stands in the script that was started, by the script's path: another process finds it there."""
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
            main = sys.modules["__main__"]
            spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
            if spec is not None or file is not None:
                return (spec and spec.name, file and str(Path(file).resolve()), value.__qualname__)
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, known: Any) -> Any:
        name, path, qualname = known
        value: Any = importlib.import_module(name) if name else _script(path)
        for part in qualname.split("."):
            value = getattr(value, part)
        return value


def _script(path: str) -> Any:
    if MAIN not in sys.modules:
        spec = importlib.util.spec_from_file_location(MAIN, path)
        assert spec is not None and spec.loader is not None
        sys.modules[MAIN] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[MAIN])
    return sys.modules[MAIN]


def packed(value: Any, what: str) -> bytes:
    """The value as bytes.

    Raises:
        SpecError: It holds a function that another process cannot import.
    """
    content = io.BytesIO()
    try:
        _Pickler(content).dump(value)
    except Exception as error:  # pickle raises what each object raises
        raise SpecError(
            f"{what} goes to processes of its own, and this cannot: {error}. Functions must stand at the top level of "
            "a module: no lambda, nothing made inside another function."
        ) from None
    return content.getvalue()


def unpacked(content: bytes) -> Any:
    """What ``packed`` was given."""
    return _Unpickler(io.BytesIO(content)).load()
