"""What the modules for other trainers share: rates by name, metrics, clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from layered_lr.errors import SpecError
from layered_lr_torch.plan_scheduler import PlanScheduler


def rates_by_name(optimizer: torch.optim.Optimizer, prefix: str = "lr/") -> dict[str, float]:
    """Return the rate that each param group has now, by its name; one without a name has its number."""
    return {
        f"{prefix}{group.get('name', number)}": float(group["lr"])
        for number, group in enumerate(optimizer.param_groups)
    }


def tell_metrics(scheduler: PlanScheduler, metrics: Mapping[str, Any], prefix: str = "") -> None:
    """Let the schedules that read metrics look at those of an evaluation; without such schedules nothing is done.

    Args:
        scheduler: From ``ll.compile`` or ``ll.scheduler``.
        metrics: Numbers by the tool's names.
        prefix: What the tool puts before ``loss`` and ``accuracy``; a name that has it is also known without.
    """
    if scheduler.is_reactive:
        plain = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
        scheduler.step(metrics={**metrics, **plain})


def check_clips_once(scheduler: PlanScheduler, has_own: bool, setting: str) -> None:
    """Refuse a tool that clips beside a spec that clips.

    Args:
        scheduler: Whose plan may clip.
        has_own: Whether the tool clips too.
        setting: What turns the tool's own clipping off.

    Raises:
        SpecError: Both clip.
    """
    clips = any(part.spec.clip_grad_norm or part.spec.clip_grad_value for part in scheduler.plan.phase_plans)
    if clips and has_own:
        raise SpecError(
            f"the spec clips gradients, and so does the trainer, before it. Set {setting}, or leave clip_grad_norm "
            "and clip_grad_value out of the spec."
        )
