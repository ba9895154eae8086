"""Parameters, buffers and modules that a forward pass makes, replaces or takes away, which no translation does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.torch_types import Module


class Parts:
    """The parameters, buffers and modules of a model at one time.

    Args:
        model: Whose they are.
    """

    def __init__(self, model: Module) -> None:
        self._parts = dict(_list_parts(model))

    def check(self, model: Module) -> None:
        """Refuse a model that has other ones now; buffers may have got other numbers, or another tensor.

        Raises:
            Unsupported: It has.
        """
        now = dict(_list_parts(model))
        places = {**self._parts, **now}
        for place in sorted(places, key=lambda place: place[0] != "module"):  # parts of another module are others too
            kind, name = place
            was, part = self._parts.get(place), now.get(place)
            if part is was or (kind == "buffer" and _are_tensors(part, was)):
                continue
            what = "makes" if was is None else "takes away" if part is None else "replaces"
            raise Unsupported(
                f"model: its forward pass {what} {kind} {name!r}, which cannot be translated. Make it where the model "
                "is made, with its shape (a pass before the run makes it too), or train on a torch backend."
            )


def _are_tensors(*parts: Any) -> bool:
    return all(isinstance(part, torch.Tensor) for part in parts)


def _list_parts(model: Module) -> Iterator[tuple[tuple[str, str], Any]]:
    for prefix, module in list_modules(model):
        tables = (("parameter", module._parameters), ("buffer", module._buffers), ("module", module._modules))
        for kind, table in tables:
            yield from (((kind, f"{prefix}{name}"), part) for name, part in table.items() if part is not None)
