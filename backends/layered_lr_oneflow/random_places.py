"""The places in a traced model that draw random numbers: from the session's numbers, or from their own."""

from __future__ import annotations

from layered_lr.arrays import Float64
from layered_lr.models.dropout_masks import draw_dropout_mask, draw_trials, draw_uniform, shape_of_all_parts
from layered_lr.models.graph import BatchSized, Size
from layered_lr_oneflow.oneflow_types import Module, Tensor, TensorType
from layered_lr_oneflow.operators.arithmetic import convert, make_constant
from layered_lr_oneflow.operators.broadcasting import is_greater, multiply
from layered_lr_oneflow.runtime import flow


class RandomPlace:
    """One random operator of a traced model.

    Args:
        operator: One of ``graph_operators.RANDOM``.
        shape: Of the numbers that it draws.
        p: The probability of a dropout to drop, or of a Bernoulli trial to be 1; unused for uniform numbers.
        module: Whose mode decides whether it draws; None if it always does.

    Attributes:
        at_shapes: The same operator for images of other shapes, by (C, H, W); they get this one's numbers.
    """

    def __init__(self, operator: str, shape: tuple[Size, ...], p: float, module: Module | None) -> None:
        self.operator, self.shape, self._p, self._module = operator, shape, p, module
        self.at_shapes: dict[tuple[int, ...], RandomPlace] = {}
        self._twins: list[RandomPlace] = []
        self._mask: Tensor | None = None

    @property
    def mask(self) -> Tensor | None:
        """The numbers for the next forward pass; None lets it draw its own. In a trace, one of its tensors."""
        return self._mask

    @mask.setter
    def mask(self, mask: Tensor | None) -> None:
        self._mask = mask
        for place in (*self.at_shapes.values(), *self._twins):
            place.mask = mask

    def draws_like(self, other: RandomPlace, images: int) -> bool:
        """Whether it draws what another one does, for a number of images."""
        alike = self.operator == other.operator and self.p == other.p
        return alike and self.sizes_at(images) == other.sizes_at(images)

    def add_twin(self, place: RandomPlace) -> None:
        """Let the same operator of a program for one number of images have this one's numbers."""
        self._twins.append(place)
        place.mask = self.mask

    def at_shape(self, shape: tuple[int, ...]) -> RandomPlace:
        """The same operator for images of a shape.

        Args:
            shape: (C, H, W).
        """
        return self.at_shapes.get(tuple(shape), self)

    @property
    def training(self) -> bool:
        """Whether it draws."""
        return self._module is None or bool(self._module.training)

    @property
    def p(self) -> float:
        """The probability of a 0 among the session's numbers; above 0 for every place that draws."""
        return 1 - self._p if self.operator == "bernoulli" else self._p if self.operator == "dropout" else 1.0

    @property
    def has_rows_of_images(self) -> bool:
        """Whether the first axis of its numbers goes over the images."""
        return len(self.shape) > 0 and isinstance(self.shape[0], BatchSized)

    def draw(self, seed: int, step: int, place: int, images: int, parts: int) -> Float64:
        """Draw the numbers of one update for all parts of its batch, one after the other along the first axis.

        Args:
            seed: Of the run.
            step: The update.
            place: The index of this place among all in the model.
            images: In all parts.
            parts: How many parts the batch has.
        """
        whole = shape_of_all_parts(self.sizes_at(images // parts), parts)
        if self.operator == "uniform":
            return draw_uniform(seed, step, place, whole)
        if self.operator == "bernoulli":
            return draw_trials(seed, step, place, whole, self._p)
        return draw_dropout_mask(seed, step, place, whole, self.p if self.training else 0.0)

    def sizes_at(self, images: int) -> tuple[int, ...]:
        """Return the shape of what it draws for one part of a batch."""
        return tuple(size.at(images) if isinstance(size, BatchSized) else size for size in self.shape)

    def drop(self, x: Tensor, images: int, is_trial: bool = False) -> Tensor:
        """Drop numbers of an activation, and make the others larger; a trial, which draws nothing, drops none."""
        if is_trial:
            larger = 0.0 if self.p >= 1 else 1 / (1 - self.p)
            return multiply(x, make_constant(self.sizes_at(images), larger, x.dtype, x))
        return multiply(x, self._draw_dropout(x.dtype, x, images) if self.mask is None else self.mask)

    def make(self, dtype: TensorType, like: Tensor, images: int, is_trial: bool = False) -> Tensor:
        """Make the numbers of a Bernoulli trial, 0 or 1, or uniform ones from 0 to 1, where ``like`` is.

        In a trial, which draws nothing, all of them are 1.
        """
        if is_trial:
            return make_constant(self.sizes_at(images), 1, dtype, like)
        if self.mask is not None:
            return convert(self.mask.reshape(*self.sizes_at(images)), dtype)
        if self.operator == "uniform":
            return flow.rand(*self.sizes_at(images), dtype=dtype, device=str(like.device))
        return convert(is_greater(self._draw_dropout(flow.float32, like, images), 0), dtype)

    def _draw_dropout(self, dtype: TensorType, like: Tensor, images: int) -> Tensor:
        ones = make_constant(self.sizes_at(images), 1, dtype, like)
        if self.p >= 1:
            return ones * 0
        return flow._C.dropout(ones, self.p, True, False, flow.default_generator, addend=None)
