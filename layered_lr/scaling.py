"""How a loss is scaled under autocast to float16."""

from __future__ import annotations

from typing import NamedTuple


class LossScaling(NamedTuple):
    """The settings of torch's ``GradScaler``, under its own names.

    Args:
        init_scale: What the loss is multiplied with at first, > 0. An overflow halves it.
        growth_interval: After how many updates in a row without an overflow it is doubled, >= 1.
    """

    init_scale: float = 65536.0
    growth_interval: int = 2000
