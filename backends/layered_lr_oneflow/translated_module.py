"""A OneFlow module that computes what a traced model computes, with the traced model's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.models.graph import ModelGraph
from layered_lr_oneflow.forward_passes import ForwardPasses, Retrace
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.second_derivatives import watch_inputs, watch_result
from layered_lr_oneflow.translated_parts import TranslatedPart
from layered_lr_oneflow.translated_program import Frame, list_tensors


class Translated(TranslatedPart):
    """A model of another framework: the root of the module tree, which has the forward pass."""

    def __init__(self, try_graph: Callable[[ModelGraph], object], retrace: Retrace | None = None) -> None:
        super().__init__()
        self.layered_lr_passes = ForwardPasses(try_graph, retrace)

    @property
    def layered_lr_shares_masks(self) -> bool:
        """Whether the model draws random numbers in training, all of which a session can draw from the run's seed."""
        return bool(self.layered_lr_passes.places)

    @property
    def layered_lr_norms_of_one_number(self) -> frozenset[str]:
        """Paths of the batch normalisations that cannot train on one image, of any shape that was traced."""
        return self.layered_lr_passes.find_norms_of_one_number()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Compute what the traced model computes, in the mode that this module is in.

        Raises:
            SpecError: The inputs are no batches of tensors, or it was traced for inputs of another shape or dtype.
            Unsupported: A module is in another mode than the model, and does other things in that mode.
        """
        _check_inputs(inputs, named)
        passes, trains = self.layered_lr_passes, bool(self.training)
        program = passes.find(self, inputs, trains)
        passes.check_modes(trains)
        answer = program.run(Frame(self, watch_inputs(inputs)))
        for tensor in list_tensors(answer):
            watch_result(tensor)
        return answer

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what a part may have, and what OneFlow's ``DistributedDataParallel`` keeps in the whole model.

        Raises:
            Unsupported: It is anything else, which the forward pass does not look at.
        """
        if name.startswith("_"):
            flow.nn.Module.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def register_forward_pre_hook(self, hook: Any) -> None:
        """Let a hook be called before each forward pass, as OneFlow does."""
        flow.nn.Module.register_forward_pre_hook(self, hook)

    def register_forward_hook(self, hook: Any) -> None:
        """Let a hook be called after each forward pass, as OneFlow does."""
        flow.nn.Module.register_forward_hook(self, hook)


def _check_inputs(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Refuse what is no batch, or no batch of as many images as the first input.

    Raises:
        SpecError: There is such an input, or none at all.
    """
    if named:
        raise SpecError(
            f"model: got the input {next(iter(named))!r} by its name. Give each in its place: model(images)."
        )
    if not inputs:
        raise SpecError("model: got no inputs. Give a batch: model(images).")
    for place, each in enumerate(inputs):
        if not isinstance(each, flow.Tensor):
            kind = f"{type(each).__module__.partition('.')[0]}.{type(each).__name__}".removeprefix("builtins.")
            raise SpecError(
                f"model: input {place} is a {kind}; must be a oneflow.Tensor. Make one of an array with "
                "oneflow.tensor(array)."
            )
        if each.ndim == 0 or each.shape[0] == 0:
            raise SpecError(
                f"model: input {place} has the shape {tuple(each.shape)}; must be a batch of at least one image. Leave "
                "empty batches out."
            )
        if each.shape[0] != inputs[0].shape[0]:
            raise SpecError(
                f"model: input 0 has {inputs[0].shape[0]} images, and input {place} has {each.shape[0]}. Give each the "
                "same number: the first axis is the batch's."
            )
