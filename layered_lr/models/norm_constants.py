"""The constants that OneFlow's batch normalisation keeps in float32 although it computes in float64."""

from __future__ import annotations

import numpy as np

from layered_lr.models.nn_modules import Module, framework_of


def find_kept_share(momentum: float) -> float:
    """Find the share of a running statistic that OneFlow's kernel keeps: 1 less the momentum, as float32 holds it."""
    return float(np.float32(1.0 - momentum))


def hold_in_float32(model: Module) -> None:
    """Let torch's batch normalisations take ``eps`` and ``momentum`` as OneFlow's kernel has them.

    OneFlow 0.9 hands both to its kernel as float32, and the momentum as ``1 - momentum``, whatever the dtype of the
    weights is. Its running statistics in float64 are 2e-8 off for that reason alone. With the same constants in torch,
    a comparison in float64 shows everything else. A model of OneFlow's stays as it is.

    Args:
        model: Changed in place.
    """
    if framework_of(model) != "torch":
        return
    for module in model.modules():
        if getattr(module, "running_mean", None) is None:
            continue
        if isinstance(getattr(module, "eps", None), float):
            module.eps = float(np.float32(module.eps))
        if isinstance(getattr(module, "momentum", None), float):
            module.momentum = 1.0 - find_kept_share(module.momentum)
