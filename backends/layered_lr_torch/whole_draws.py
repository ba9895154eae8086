"""Random numbers of a model in several processes: each draws those of all images, and takes its own.

All processes' generators stand where that of a single process would stand, so the numbers of each image are those that
a single process draws, bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from layered_lr.console import say
from layered_lr.data.share import Share
from layered_lr_torch.torch_types import Forward, Tensor

_FILLING = ("bernoulli_", "uniform_", "normal_", "exponential_", "geometric_", "log_normal_", "cauchy_", "random_")
"""Operators that fill a tensor in place."""
_MAKING = ("rand", "randn", "randint")
"""Operators that make a tensor of a shape."""
_LIKE = ("rand_like", "randn_like", "randint_like", "bernoulli")
"""Operators that make a tensor like another one."""


class WholeDraws(TorchDispatchMode):
    """Lets a forward pass draw the random numbers of all processes' images, and take those of this one.

    Numbers whose first axis is a multiple of the images are those of images, in their order; all others are drawn as
    they are. Where another axis is as long as there are images, such as in layers that take (length, N, features), the
    numbers may be other ones than those of a single process, which is said once.

    Args:
        share: Which process this is.

    Attributes:
        whole: How many images the next passes have in all processes; None where each has as many.
        has_drawn: Whether a pass has drawn anything.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._share = share
        self.whole: int | None = None
        self._images, self._place = 1, Share().part(1)
        self._rows = 1  # of all processes
        self._place_of_draw = 0  # in a pass
        self._of_equal_parts: dict[tuple[int, ...], bool] = {}  # whether its draws were of images
        self.has_drawn = self._has_said = False

    def wrap(self, forward: Forward) -> Forward:
        """Let a forward pass run in this mode. Where its first pass draws nothing, the next ones run without it."""
        is_first = True

        def run(images: Tensor) -> Any:
            nonlocal is_first
            self._images = len(images)
            self._rows = self.whole or self._images * self._share.count
            self._place, self._place_of_draw = self._share.part(self._rows), 0
            with self if is_first or self.has_drawn else contextlib.nullcontext():
                is_first = False
                return forward(images)

        return run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        self._place_of_draw += 1
        name = func.overloadpacket.__name__
        if name in _FILLING:
            return self._fill(func, args, options)
        if name == "native_dropout":
            return self._drop(func, args, options)
        if name in _LIKE:
            return self._make(args[0].shape, lambda: func(self._widen(args[0]), *args[1:], **options), args[0])
        if name in _MAKING:
            place = next(index for index, each in enumerate(args) if isinstance(each, list | tuple))
            size = tuple(args[place])
            wide = (*args[:place], list(self._whole(size)), *args[place + 1 :])
            return self._make(size, lambda: func(*wide, **options))
        return func(*args, **options)

    def _is_of_images(self, shape: Sequence[int]) -> bool:
        """Whether numbers are those of images; for a smaller last batch, those in the same place were so before."""
        place = (self._place_of_draw, *shape[1:])
        if self.whole is not None and place in self._of_equal_parts:
            return self._of_equal_parts[place]
        found = self._goes_by_images(shape)
        if self.whole is None:
            self._of_equal_parts[place] = found
        return found

    def _goes_by_images(self, shape: Sequence[int]) -> bool:
        if len(shape) > 0 and shape[0] > 0 and shape[0] % self._images == 0:
            return True
        if self._images > 1 and self._images in shape[1:] and not self._has_said:
            self._has_said = True
            say(
                f"the model draws random numbers of shape {tuple(shape)}, whose first axis is not that of the images: "
                "each process draws other ones than a single process would."
            )
        return False

    def _whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the numbers of all processes."""
        if not self._is_of_images(shape):
            return tuple(shape)
        return (shape[0] // self._images * self._rows, *shape[1:])

    def _widen(self, tensor: Tensor) -> Tensor:
        """A tensor for all processes, which this process's own values fill."""
        if not self._is_of_images(tensor.shape):
            return tensor
        own = len(tensor)
        each = own // self._images  # rows of one image
        first = -each * self._place.start % own  # of the copies, where this process's own values are to stand
        rows = each * self._rows
        return torch.cat([tensor] * -(-(first + rows) // own))[first : first + rows]

    def _own(self, whole: Tensor) -> Tensor:
        each = len(whole) // self._rows
        return whole[each * self._place.start : each * self._place.stop]

    def _make(self, shape: Sequence[int], draw: Callable[[], Tensor], like: Tensor | None = None) -> Tensor:
        self.has_drawn = True
        made = draw()
        return self._own(made).clone() if self._is_of_images(shape) else made

    def _fill(self, func: Any, args: Sequence[Any], options: dict[str, Any]) -> Tensor:
        self.has_drawn = True
        target: Tensor = args[0]
        if not self._is_of_images(target.shape):
            func(*args, **options)
            return target
        whole = self._widen(target)
        more = [self._widen(each) if isinstance(each, torch.Tensor) else each for each in args[1:]]
        func(whole, *more, **options)
        target.copy_(self._own(whole))
        return target

    def _drop(self, func: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        self.has_drawn = True
        if not self._is_of_images(args[0].shape):
            return func(*args, **options)
        dropped, mask = func(self._widen(args[0]), *args[1:], **options)
        return self._own(dropped).clone(), self._own(mask).clone()
