"""The states of torch's own random generators, from which a user's model draws its dropout masks."""

from __future__ import annotations

import numpy as np
import torch

from layered_lr.arrays import Array, Arrays
from layered_lr.errors import CheckpointError
from layered_lr.files import one_line

CPU, CUDA = "torch-cpu", "torch-cuda"


def read_states(device: torch.device) -> dict[str, Array]:
    """Copy the state of the CPU's generator, and of the device's if it is a GPU."""
    found = {CPU: torch.get_rng_state().numpy().copy()}
    if device.type == "cuda":
        found[CUDA] = torch.cuda.get_rng_state(device).numpy().copy()
    return found


def restore_states(states: Arrays, device: torch.device) -> None:
    """Set the generators to what ``read_states`` returned; states of generators that are not here are ignored.

    Raises:
        CheckpointError: A state is none of torch's. Then no generator has changed.
    """
    before = read_states(device)
    try:
        _set_states(states, device)
    except (RuntimeError, TypeError, ValueError) as error:
        _set_states(before, device)
        raise CheckpointError(f"the state of a random generator is none of torch's: {one_line(error)}") from None


def _set_states(states: Arrays, device: torch.device) -> None:
    if CPU in states:
        torch.set_rng_state(torch.from_numpy(np.array(states[CPU])))
    if CUDA in states and device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(np.array(states[CUDA])), device)
