"""torch's own schedulers, stepped on an optimizer without gradients: what every schedule is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

STEPS = 500
RATES = np.exp(np.random.default_rng(20240607).uniform(np.log(1e-6), np.log(10.0), 50))


def stepped(
    make: Callable[[torch.optim.Optimizer], Any], lrs: Sequence[float], steps: int = STEPS, key: str = "lr"
) -> NDArray[np.float64]:
    """What torch has in its param groups gives at each step: (steps, groups)."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": float(lr)} for lr in lrs]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    scheduler = make(optimizer)
    optimizer.step()
    rows = []
    for step in range(steps):
        if step:
            scheduler.step()
        rows.append([group[key] for group in optimizer.param_groups])
    return np.array(rows)


def closed(
    make: Callable[[torch.optim.Optimizer], Any], lrs: Sequence[float], steps: int = STEPS
) -> NDArray[np.float64]:
    """What torch's ``_get_closed_form_lr`` gives at each step: (steps, groups)."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": float(lr)} for lr in lrs]
    scheduler = make(torch.optim.SGD(groups, lr=0.1))
    rows = []
    for step in range(steps):
        scheduler.last_epoch = step
        rows.append(scheduler._get_closed_form_lr())
    return np.array(rows)
