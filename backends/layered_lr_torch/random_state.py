"""The states of torch's own random generators, from which a user's model draws its dropout masks."""

from __future__ import annotations

import numpy as np
import torch

from layered_lr.arrays import Array, Arrays

CPU, CUDA = "torch-cpu", "torch-cuda"


def read_states(device: torch.device) -> dict[str, Array]:
    """Copy the state of the CPU's generator, and of the device's if it is a GPU."""
    found = {CPU: torch.get_rng_state().numpy().copy()}
    if device.type == "cuda":
        found[CUDA] = torch.cuda.get_rng_state(device).numpy().copy()
    return found


def restore_states(states: Arrays, device: torch.device) -> None:
    """Set the generators to what ``read_states`` returned; states of generators that are not here are ignored."""
    if CPU in states:
        torch.set_rng_state(torch.from_numpy(np.array(states[CPU])))
    if CUDA in states and device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(np.array(states[CUDA])), device)
