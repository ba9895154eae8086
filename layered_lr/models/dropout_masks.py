"""Dropout masks of the models that the library builds: the same on every backend, a function of seed and step alone.

Frameworks draw different masks, and a compiled OneFlow Graph cannot be seeded again. Masks that are drawn here and
handed to the model make runs with dropout comparable, and let a stopped run go on bitwise.
"""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float64

_STREAM = 11  # tells these draws from others of the same seed


def dropout_mask(seed: int, step: int, place: int, shape: tuple[int, ...], p: float) -> Float64:
    """What an activation is multiplied with: 0 with probability ``p``, else ``1 / (1 - p)``, as in ``nn.Dropout``.

    Args:
        seed: Of the run.
        step: The update, counted from the start of the run.
        place: Which of the model's dropouts, in its order.
        shape: Of the activation, the whole update's images first, whatever parts they come in.
        p: 0 to 1.
    """
    kept = np.random.default_rng([seed, _STREAM, step, place]).random(shape) >= p
    return kept * (0.0 if p >= 1 else 1 / (1 - p))
