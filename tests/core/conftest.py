"""Oracles for the tests of the core."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def torch_steplr(torch: Any) -> Callable[[float, int, float, Iterable[int]], list[float]]:
    """``torch.optim.lr_scheduler.StepLR`` in its own closed form: (lr, step_size, gamma, steps) -> rates."""

    def rates(lr: float, step_size: int, gamma: float, steps: Iterable[int]) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
        found = []
        for step in steps:
            scheduler.last_epoch = step
            found += scheduler._get_closed_form_lr()
        return found

    return rates
