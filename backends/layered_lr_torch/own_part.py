"""The part of an update's images that this process has, where processes may have unequal parts."""

from __future__ import annotations

import torch

from layered_lr_torch import random_state
from layered_lr_torch.processes import TorchProcesses
from layered_lr_torch.shared_norms import count_images
from layered_lr_torch.whole_draws import WholeDraws


class OwnPart:
    """Lets this process's part of an update count as many images as it has.

    Args:
        processes: That train together.
        device: Where the model is.

    Attributes:
        draws: Of the random numbers of all processes.
    """

    def __init__(self, processes: TorchProcesses, device: torch.device) -> None:
        self._processes, self._device = processes, device
        self.draws = WholeDraws(processes.share)

    def begin(self, images: int, whole: int | None) -> tuple[int, float]:
        """Begin an update.

        Args:
            images: That this process has.
            whole: Those of all processes; None where each has as many.

        Returns:
            The images of all processes, and the weight of this process's loss: gradients and losses are averaged over
            the processes.

        Raises:
            DataError: This process has another number of images than its part.
        """
        self._processes.signs.calls += 1
        self.draws.whole = whole
        every, part = self._processes.share.part_of_update(images, whole)
        count_images(not part.is_stand_in)
        return every, part.weight

    def end(self) -> None:
        """Let all processes' generators stand alike after unequal parts.

        Numbers of which only some processes could tell that they are no images' would leave them apart.
        """
        if self.draws.whole is not None and self.draws.has_drawn:
            states = self._processes.from_first(random_state.read_states(self._device))
            random_state.restore_states(states, self._device)
