"""A schedule of each kind, for tests over all of them."""

from __future__ import annotations

import layered_lr as ll


# Lengths are chosen so that each goes through all its parts in nine steps.
def halved(step: float) -> float:
    """A user's own factor, importable by path."""
    return 0.5**step


EXAMPLES: dict[str, ll.Schedule] = {
    "Constant": ll.Constant(),
    "LambdaLR": ll.LambdaLR(halved),
    "MultiplicativeLR": ll.MultiplicativeLR(lambda step: 0.9 + 0.01 * step),
    "StepLR": ll.StepLR(2, gamma=0.3),
    "MultiStepLR": ll.MultiStepLR([0, 2, 2, 5], gamma=0.3),
    "ConstantLR": ll.ConstantLR(factor=0.25, total_iters=3),
    "LinearLR": ll.LinearLR(start_factor=0.2, end_factor=0.9, total_iters=4),
    "ExponentialLR": ll.ExponentialLR(gamma=0.8),
    "PolynomialLR": ll.PolynomialLR(total_iters=6, power=1.7),
    "CosineAnnealingLR": ll.CosineAnnealingLR(T_max=4, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": ll.CosineAnnealingWarmRestarts(T_0=2, T_mult=2, eta_min=1e-3),
    "CyclicLR": ll.CyclicLR(1e-3, 0.1, step_size_up=2, mode="triangular2", cycle_momentum=False),
    "OneCycleLR": ll.OneCycleLR(max_lr=0.2, three_phase=True, cycle_momentum=False),
    "SequentialLR": ll.SequentialLR([ll.ConstantLR(0.1, 3), ll.ExponentialLR(0.7)], milestones=[3]),
    "ChainedScheduler": ll.ChainedScheduler([ll.ConstantLR(0.5, 4), ll.ExponentialLR(0.9)]),
    "Warmup": ll.Warmup(3, ll.StepLR(2, gamma=0.5)),
    "CosineDecay": ll.CosineDecay(warmup_steps=2, min_lr=1e-4),
    "InverseSqrt": ll.InverseSqrt(warmup_steps=3),
    "WSD": ll.WSD(warmup_steps=2, decay_steps=3),
    "Table": ll.Table([0.3, 0.1, 0.1, 0.0, 0.2, 0.5, 0.5, 0.5, 0.01, 0.01]),
    "Function": ll.Function(lambda step: 1.0 / (1.0 + step)),
}
