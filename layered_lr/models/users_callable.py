"""A callable of the user as a run takes it: the model that it makes gets a new head, and is looked over."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.models.user_models import make_model
from layered_lr.printed import name_of
from layered_lr.registry import load_looker, load_zoo

_MADE: Final[weakref.WeakValueDictionary[int, Any]] = weakref.WeakValueDictionary()
"""Every module that a callable has made so far, as long as somebody holds it, by its identity."""


class UsersCallable:
    """Makes a model by the user's callable.

    Args:
        make: The user's.
        num_classes: Of the data, or how many numbers the model is to answer with.
        image_shape: (channels, height, width) of the images.
        head: Puts a new head in the place of ``"auto"`` or of this path; None leaves the model as it is.
        has_classes: Whether the targets are class numbers.

    Attributes:
        answering: The paths of the layers that answer, known when a model has been made; None where none can be seen.
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
        self.answering: tuple[str, ...] | None = None

    def __call__(self) -> Module:
        """Make the model.

        Raises:
            SpecError: The callable makes no module, or the same one once more; there is no such head, the model cannot
                go on with a new one, or it has a layer that it never uses.
        """
        made = make_model(self._make)
        self._check_new(made)
        framework = str(framework_of(made))
        if self._head is not None and framework != "torch":
            raise SpecError(
                f"head={self._head!r}: puts a new head on a module of torch; the callable makes one of OneFlow. Build "
                "it for the data's classes, and leave head out."
            )
        if self._head is not None:
            self._replace_head(made, self._head, load_zoo("torch"))
        looker = load_looker(framework)
        if self._has_classes:
            self.answering = looker.check_use(made, self._num_classes, self._image_shape)
        else:
            self.answering = looker.find_answering(made, self._image_shape)
        return made

    def _check_new(self, made: Module) -> None:
        if _MADE.get(id(made)) is made:
            raise SpecError(
                f"model: {self.__name__}() returned the same {type(made).__name__} as before; must make a new one at "
                "each call, because a run would begin with what another has trained. Let it build the model, or return "
                "copy.deepcopy(...) of it."
            )
        _MADE[id(made)] = made

    def _replace_head(self, made: Module, head: str, torchs: Any) -> None:
        path = torchs.find_head_path(made, head, torchs.find_answering(made, self._image_shape))
        took_images = torchs.takes_images(made, self._image_shape)
        torchs.put_head(made, path, self._num_classes)
        if took_images and not torchs.takes_images(made, self._image_shape):
            raise SpecError(
                f"head={head!r}: with {self._num_classes} outputs at {path!r}, the model's forward pass fails, and "
                "before it did not: it goes on with the old number of outputs. Give the path of the layer that "
                "answers, or build the model for the data's classes, and leave head out."
            )
