"""The work that every backend of a comparison does, in a form that can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from layered_lr.models.zoo import is_catalogued
from layered_lr.parity.probe import rungs_of
from layered_lr.spec.spec import Spec
from layered_lr.training.grouped_options import Precision
from layered_lr.training.options import RunOptions


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
