"""torch's own random generators, from which a user's model draws its dropout masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

CPU, CUDA = "torch-cpu", "torch-cuda"


def states(device: torch.device) -> dict[str, NDArray[Any]]:
    """Of the CPU's generator, and of the device's."""
    found = {CPU: torch.get_rng_state().numpy().copy()}
    if device.type == "cuda":
        found[CUDA] = torch.cuda.get_rng_state(device).numpy().copy()
    return found


def restore(given: Mapping[str, NDArray[Any]], device: torch.device) -> None:
    """Go on from what ``states`` gave, on a machine of the same kind; what is of another one is left alone."""
    if CPU in given:
        torch.set_rng_state(torch.from_numpy(np.array(given[CPU])))
    if CUDA in given and device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(np.array(given[CUDA])), device)
