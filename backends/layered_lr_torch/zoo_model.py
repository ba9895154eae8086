"""A model of the zoo as a callable: every backend builds it as it builds a model of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import mark_answering
from layered_lr.models.own_depths import describe_parameters
from layered_lr.models.parameter import Parameter
from layered_lr.models.pretrained import Pretrained
from layered_lr_torch import zoo_building
from layered_lr_torch.dropout_settings import set_dropout
from layered_lr_torch.heads import find_head_path
from layered_lr_torch.torch_types import Module
from layered_lr_torch.weight_fitting import fit, load_pretrained


class ZooModel:
    """Makes a model of torchvision or timm, by name, with a head for the data's classes.

    Args:
        name: Of the model.
        num_classes: Of the data.
        image_shape: (channels, height, width) of the images.
        head: ``"auto"``, or the path of the layer to put a new one in the place of.
        dropout: For every dropout, or by pattern; None leaves them as they are.
        pretrained: Weights to load; None leaves the model as its constructor draws it.

    Attributes:
        new: The parameters that the pretrained weights left as they were drawn; None where there are none. Known when a
            model has been made.
        answering: The paths of the layers that answer; None where only a forward pass shows them.

    Raises:
        SpecError: No such model, no such head, or one that does not take such images.
        BackendUnavailable: torchvision or timm cannot be imported.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        image_shape: tuple[int, int, int],
        head: str = "auto",
        dropout: float | Mapping[str, float] | None = None,
        pretrained: Pretrained | None = None,
    ) -> None:
        zoo_building.check_name(name)
        self.__name__ = name
        self._name, self._num_classes, self._head, self._dropout = name, num_classes, head, dropout
        self._pretrained = pretrained
        self._options = zoo_building.check_size(name, image_shape)
        self._image_shape = image_shape
        self.new: tuple[str, ...] | None = None
        outputs = zoo_building.find_outputs(name, self._options)
        self.answering = tuple(outputs) if head in ("auto", *outputs) and outputs else None

    def __call__(self) -> Module:
        """Make the model; its constructor draws from torch's generator."""
        made = zoo_building.make_with_head(self._name, self._num_classes, self._options, self._head)
        if self._dropout is not None:
            set_dropout(made, self._dropout)
        if self._pretrained is not None:
            if self._pretrained.transform is not None and hasattr(made, "transform_input"):
                setattr(made, "transform_input", True)  # noqa: B010  # torchvision's weights of inception_v3 and googlenet want it
            if self._pretrained.arrays is not None:
                self.new = load_pretrained(made, self._pretrained.name, self._pretrained.arrays, self._find_heads(made))
        return made

    def list_parameters(self) -> list[Parameter]:
        """List the parameters of such a model, which is built without numbers for it.

        Raises:
            SpecError: The model does not run with this head, or the weights that have been read are another model's.
        """
        made = zoo_building.make_empty(
            functools.partial(zoo_building.make_with_head, self._name, self._num_classes, self._options, self._head)
        )
        if self._head != "auto" and not zoo_building.takes(made, self._image_shape):
            raise SpecError(
                f"head={self._head!r}: model {self._name!r} does not run with another layer there. Its head is "
                f"{zoo_building.find_outputs(self._name, self._options)[-1]!r}."
            )
        if self._dropout is not None:
            set_dropout(made, self._dropout)
        if self._pretrained is not None and self._pretrained.arrays is not None:
            fit(made, self._pretrained.name, self._pretrained.arrays, self._find_heads(made))
        mark_answering(made, self)
        return describe_parameters(made)

    def _find_heads(self, made: Module) -> tuple[str, ...]:
        return self.answering or (find_head_path(made, self._head),)
