"""The verdict of ``overfit``: whether a model learned a batch by heart, and what to look at where it did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from layered_lr.arrays import Float64
from layered_lr.findings import Finding
from layered_lr.printed import harmless
from layered_lr.reports.tables import ReportTable, wrapped
from layered_lr.strict_json import json_text

OVERFIT_KINDS: Final[Mapping[str, str]] = {
    "rate-zero": "a group's rate is 0",
    "frozen-head": "the layer that answers does not train",
    "no-gradient": "the loss does not depend on a group",
    "normalisation": "the images' numbers are far from mean 0 and deviation 1",
    "contradicting-labels": "one image has two labels",
    "labels": "labels go with images no better than by chance",
    "dead-activations": "parameters whose gradient is exactly 0, at the start and at every update",
    "exploding-gradient": "a group's gradient norm is above 100, or not finite, at the start",
    "vanishing-gradient": "gradients 10,000 times smaller than the largest, at the start",
    "rate-too-high": "the loss rises, or becomes NaN",
    "rate-too-low": "the loss has fallen by less than half, and never rose much",
    "needs-more-steps": "the loss falls, and is not there yet",
}
"""Every kind of finding of ``overfit``, with its meaning."""


class GroupMovement(NamedTuple):
    """How far a group moved.

    Args:
        name: Of the group.
        rate: At which it trained.
        first_norm: Of its gradient at the first update.
        last_norm: Of its gradient at the last update.
        moved: The norm of what its weights changed by, as a part of their own norm at the start.
    """

    name: str
    rate: float
    first_norm: float
    last_norm: float
    moved: float


@dataclass(frozen=True, eq=False)
class OverfitVerdict:
    """Whether a model learned a few batches by heart. ``bool(verdict)`` says so too.

    Args:
        backend: What trained.
        ok: Whether the loss reached ``target``.
        target: The loss to reach.
        losses: Of each update, those that are finite, shape (n,).
        diverged: Whether a loss was not finite.
        images: How many images were learned.
        groups: How far each group moved.
        findings: What to look at, the likely causes first. Each has a ``kind``; ``docs/find-a-rate.md`` lists them.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
        >>> verdict = ll.overfit(ll.Spec(ll.Adam(0.01)), build, batch_size=16, progress=False)
        >>> verdict.ok, verdict.findings
        (True, ())
    """

    backend: str
    ok: bool
    target: float
    losses: Float64 = field(repr=False)
    diverged: bool
    images: int
    groups: tuple[GroupMovement, ...] = field(repr=False)
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return self.ok

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain tables, lists, strings and numbers."""
        return {
            "backend": self.backend,
            "ok": self.ok,
            "target": self.target,
            "losses": self.losses.tolist(),
            "diverged": self.diverged,
            "images": self.images,
            "groups": [group._asdict() for group in self.groups],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """Return ``to_dict`` as JSON."""
        return json_text(self.to_dict(), indent=1)

    def __str__(self) -> str:
        first, last = (self.losses[0], self.losses[-1]) if len(self.losses) else (float("nan"), float("nan"))
        course = f"the loss went from {first:.4g} to {last:.4g} in {len(self.losses)} updates"
        what = f"{self.backend}: {self.images} images"
        if self.ok:
            said = f"{what} learned by heart: {course} (to reach: {self.target:.3g})."
        else:
            end = ", and then was not finite" if self.diverged else ""
            said = f"{what} not learned: {course}{end} (to reach: {self.target:.3g})."
        headers = ["group", "rate", "first gradient norm", "last gradient norm", "moved"]
        rows = [
            [each.name, f"{each.rate:.3g}", f"{each.first_norm:.3g}", f"{each.last_norm:.3g}", f"{each.moved:.2%}"]
            for each in self.groups
        ]
        lines = [wrapped(said), ReportTable(headers, rows, frozenset(headers[1:])).text()]
        lines += [wrapped(f"{number}: {finding}") for number, finding in enumerate(self.findings, 1)]
        return harmless("\n".join(lines))
