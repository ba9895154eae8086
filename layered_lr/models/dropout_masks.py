"""Dropout masks for the models that the library builds: they depend only on seed and step, and not on the backend.

The frameworks draw different masks, and the generator of a compiled OneFlow Graph cannot be set again. With masks from
here, runs with dropout can be compared, and a stopped run continues bit for bit.
"""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float64

_STREAM, _UNIFORM_STREAM = 11, 13  # separate these draws from other draws with the same seed


def draw_dropout_mask(seed: int, step: int, place: int, shape: tuple[int, ...], p: float) -> Float64:
    """Draw the factors of an activation: 0 with probability ``p``, else ``1 / (1 - p)``, as in ``nn.Dropout``.

    Args:
        seed: The seed of the run.
        step: The update, counted from the start of the run.
        place: Index of the dropout among the model's dropouts.
        shape: Shape of the activation for all images of the update, also if the model takes them in parts.
        p: Probability of a 0, 0 to 1.
    """
    kept = np.random.default_rng([seed, _STREAM, step, place]).random(shape) >= p
    return kept * (0.0 if p >= 1 else 1 / (1 - p))


def draw_trials(seed: int, step: int, place: int, shape: tuple[int, ...], p: float) -> Float64:
    """Draw Bernoulli trials: 1 with probability ``p``, else 0.

    Args:
        seed: The seed of the run.
        step: The update, counted from the start of the run.
        place: Index of what draws them among all in the model that draw.
        shape: Of the trials for all images of the update.
        p: Probability of a 1, 0 to 1.
    """
    return (draw_dropout_mask(seed, step, place, shape, 1 - p) > 0).astype(np.float64)


def draw_uniform(seed: int, step: int, place: int, shape: tuple[int, ...]) -> Float64:
    """Draw numbers from 0 to below 1, which stay below 1 in float32.

    Args:
        seed: The seed of the run.
        step: The update, counted from the start of the run.
        place: Index of what draws them among all in the model that draw.
        shape: Of the numbers for all images of the update.
    """
    rng = np.random.default_rng([seed, _UNIFORM_STREAM, step, place])
    return rng.random(shape, dtype=np.float32).astype(np.float64)


def shape_of_all_parts(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Return the shape of the numbers of a whole update, whose parts stand one after the other along the first axis.

    Args:
        shape: Of the numbers of one part; a single number is ``()``.
        parts: How many parts the update's batch has.
    """
    return (shape[0] * parts, *shape[1:]) if shape else (parts,)
