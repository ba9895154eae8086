"""What an audit finds: values, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from layered_lr.printed import harmless
from layered_lr.reports.tables import ReportTable, wrapped

KINDS: Final[Mapping[str, str]] = {
    "in-no-group": "a parameter has a gradient, and no optimizer has it",
    "in-two-groups": "a parameter is in two groups, in two optimizers, or twice in one group",
    "foreign-parameter": "an optimizer has a parameter that the model does not have",
    "frozen-but-listed": "a group has a parameter with requires_grad=False",
    "frozen-but-moving": "a frozen parameter moves, by an old gradient, by decay or by momentum",
    "batch-norm-moves": "the statistics of a frozen normalisation still move",
    "lr-scale-unread": "groups have lr_scale, and nothing multiplies by it",
    "ratio-flattened": "the scheduler takes away the difference between the groups' rates",
    "behind-scheduler": "the scheduler was made before a group was added",
    "last-epoch-off": "scheduler and optimizer are at different updates, or a rate is not the scheduler's",
    "scheduler-of-another": "a scheduler sets the rates of an optimizer that does not train",
    "two-schedulers": "two schedulers set the rates of one optimizer",
    "length-mismatch": "the schedule is much longer or shorter than the run: epochs where it counts updates",
    "decay-differs": "some biases or normalisations decay, and others of the same kind do not",
    "state-of-another": "the optimizer's state belongs to another parameter",
    "ema-misses": "a moving average lacks parameters, or is no copy",
    "clipping-misses": "clipping leaves out parameters that train",
    "ranks-differ": "processes that train one model have different groups, rates, settings or schedulers",
}
"""Every kind of finding, with its meaning."""

_MOST_NAMES = 3  # in a sentence


@dataclass(frozen=True)
class Finding:
    """One fault that an audit found.

    Args:
        kind: One of the names on the page "Audit a recipe", such as ``"in-no-group"``.
        what: What is there, in a sentence.
        groups: The param groups that it is about: their ``name``, or ``group 0``.
        parameters: The names of the parameters that it is about, in model order.
        effect: What it does to the run.
        mend: What to change.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> finding = ll.audit(torch.optim.SGD(model[1].parameters(), lr=0.1), model).findings[0]
        >>> finding.kind, finding.parameters
        ('in-no-group', ('0.weight', '0.bias'))
    """

    kind: str
    what: str
    groups: tuple[str, ...]
    parameters: tuple[str, ...]
    effect: str
    mend: str

    @property
    def where(self) -> str:
        """Groups and parameters in a few words."""
        parts = [summarise_names(self.groups), summarise_names(self.parameters)]
        return "; ".join(part for part in parts if part) or "the whole recipe"

    def __str__(self) -> str:
        return harmless(f"{self.kind} ({self.where}): {self.what} {self.effect} To mend it: {self.mend}")


@dataclass(frozen=True)
class Audit:
    """What ``audit`` found in a recipe; printed, it is a table with what to do below it.

    Args:
        findings: The faults, those of parameters first. Empty for a clean recipe.
        unchecked: What could not be looked at, and why, each in a sentence. This is no fault.
        headline: What was audited: optimizers, groups and parameters.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Linear(8, 2)
        >>> audit = ll.audit(torch.optim.SGD(model.parameters(), lr=0.1), model)
        >>> audit.ok
        True
        >>> print(audit)
        SGD, 1 group, 2 of 2 parameters: nothing found
    """

    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]
    headline: str

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.findings))

    def to_json(self) -> str:
        """Return everything as JSON: ``ok``, ``headline``, ``findings`` and ``unchecked``."""
        table = {
            "ok": self.ok,
            "headline": self.headline,
            "findings": [asdict(finding) for finding in self.findings],
            "unchecked": list(self.unchecked),
        }
        return json.dumps(table, indent=2)

    def __str__(self) -> str:
        count = len(self.findings)
        found = "nothing found" if self.ok else f"{count} finding{'s' * (count != 1)}"
        lines = [wrapped(f"{self.headline}: {found}")]
        if self.findings:
            rows = [[str(number), each.kind, each.where, each.what] for number, each in enumerate(self.findings, 1)]
            lines.append(ReportTable(["", "finding", "where", "what"], rows, frozenset({""})).text())
            lines += [
                wrapped(f"{number}: {each.effect} To mend it: {each.mend}")
                for number, each in enumerate(self.findings, 1)
            ]
        return "\n".join([*lines, *(wrapped(f"not checked: {reason}") for reason in self.unchecked)])


def summarise_names(names: tuple[str, ...]) -> str:
    """Return the first names and how many more there are.

    Example:
        >>> summarise_names(("a", "b", "c", "d", "e"))
        'a, b, c and 2 more'
    """
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
