"""A callable of the user as a run takes it: the model that it makes gets a new head, and is looked over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.models.user_models import make_model
from layered_lr.printed import name_of
from layered_lr.registry import load_zoo


class UsersCallable:
    """Makes a model by the user's callable.

    Args:
        make: The user's.
        num_classes: Of the data, or how many numbers the model is to answer with.
        image_shape: (channels, height, width) of the images.
        head: Puts a new head in the place of ``"auto"`` or of this path; None leaves the model as it is.
        has_classes: Whether the targets are class numbers.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        num_classes: int,
        image_shape: tuple[int, int, int],
        head: str | None,
        has_classes: bool = True,
    ) -> None:
        self._has_classes = has_classes
        self._make, self._num_classes, self._image_shape, self._head = make, num_classes, image_shape, head
        self.__name__ = name_of(make)

    def __call__(self) -> Module:
        """Make the model.

        Raises:
            SpecError: The callable makes no module; there is no such head, or a layer that the model never uses.
        """
        made = make_model(self._make)
        if framework_of(made) != "torch":
            if self._head is not None:
                raise SpecError(
                    f"head={self._head!r}: puts a new head on a module of torch; the callable makes one of OneFlow. "
                    "Build it for the data's classes, and leave head out."
                )
            return made
        torchs = load_zoo("torch")
        if self._head is not None:
            torchs.put_head(made, torchs.find_head_path(made, self._head), self._num_classes)
        if self._has_classes:
            torchs.check_use(made, self._num_classes, self._image_shape)
        return made
