"""Small torch networks that look into tensors at places that the images say, for tests of places out of range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

PLACES: Final = 5


class Looking(nn.Module):
    """Answers by what a function finds at the place that the first pixel of each image says.

    Args:
        function: Takes the module and the places, shape (N,); returns numbers of shape (N, 6).
    """

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.rows = nn.Embedding(PLACES, 6)
        self.head = nn.Linear(6, 3)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        places = x[:, 0, 0, 0].long()
        places = torch.where(places.abs() < 4, places.abs(), places)  # a model is tried with noise around 0
        return self.head(self.function(self, places))


def _columns(net: Any, places: Tensor) -> tuple[Tensor, Tensor]:
    return net.rows.weight.t().expand(len(places), 6, PLACES), places.reshape(-1, 1, 1).expand(-1, 6, 1)


def _gather(net: Any, places: Tensor) -> Tensor:
    rows, index = _columns(net, places)
    return torch.gather(rows, 2, index).squeeze(2)


def _take_along(net: Any, places: Tensor) -> Tensor:
    rows, index = _columns(net, places)
    return torch.take_along_dim(rows, index, 2).squeeze(2)


def _scatter_add(net: Any, places: Tensor) -> Tensor:
    rows, index = _columns(net, places)
    return rows.scatter_add(2, index, torch.ones_like(rows[:, :, :1])).sum(2)


def _index_add(net: Any, places: Tensor) -> Tensor:
    made = net.rows.weight.index_add(0, places, torch.ones(len(places), 6))
    return made.sum(0).expand(len(places), 6)


def _count(net: Any, places: Tensor) -> Tensor:
    net.count += 2
    return net.rows.weight[net.count].expand(len(places), 6)


def _zero_outside(places: Tensor) -> Tensor:
    return ((places - 50) * (places + 40)).reshape(-1, 1)


LOOKUPS: Final[dict[str, Callable[[Any, Tensor], Tensor]]] = {
    "embedding": lambda net, places: net.rows(places),
    "gather": _gather,
    "scatter_add": _scatter_add,
    "index_add": _index_add,
    "take_along_dim": _take_along,
    "index_select": lambda net, places: net.rows.weight.index_select(0, places),
    "x[index]": lambda net, places: net.rows.weight[places],
    "x[index, index]": lambda net, places: net.rows.weight[places * 0, places].unsqueeze(1).expand(-1, 6),
    "one_hot": lambda net, places: F.one_hot(places, PLACES).float() @ net.rows.weight,
    "cross_entropy": lambda net, places: (
        F.cross_entropy(net.rows(places * 0)[:, :PLACES], places) + net.rows(places * 0)
    ),
    "a counter": _count,
    "x // y": lambda net, places: net.rows(places * 0) + (7 // _zero_outside(places)).float(),
    "x % y": lambda net, places: net.rows(places * 0) + (places.reshape(-1, 1) % _zero_outside(places)).float(),
}


def images_with(place: int) -> NDArray[np.float32]:
    """Make 12 images, of which the eleventh says this place and the others places within the range."""
    images = np.zeros((12, 3, 2, 2), np.float32)
    images[:, 0, 0, 0] = np.arange(12) % PLACES
    images[10, 0, 0, 0] = place
    return images
