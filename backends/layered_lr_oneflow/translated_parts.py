"""Modules inside of a translated model: torch's names and tensors, and a refusal of all that would change nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from layered_lr.errors import SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.weight_files import read_tensor
from layered_lr_oneflow.oneflow_types import Module
from layered_lr_oneflow.runtime import flow

OWN_PREFIX = "layered_lr"
"""What the names of the library's own attributes begin with."""


class TranslatedPart(flow.nn.Module):
    """A module inside of a translated model: it holds tensors under torch's names, and its mode counts.

    Its forward pass was written down when torch's module was traced. So what would have to change that, such as another
    probability of a dropout, or a hook, is refused. Names of the library's own begin with ``layered_lr``: all others
    are the user's.
    """

    layered_lr_path: ClassVar[str] = ""
    """Where it is in the model; a part has a class of its own."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Refuse to run: only the whole model has a forward pass.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(
            f"model: this {type(self).__name__} is a part of a translated model, of which only the whole has a forward "
            "pass. Translate this part of the torch model by itself: translate(net.part, example)."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set parameters, buffers, and what each module of OneFlow has, such as the mode.

        Raises:
            Unsupported: It is anything else, which the forward pass does not look at.
        """
        tensors = {**self.__dict__.get("_parameters", {}), **self.__dict__.get("_buffers", {})}
        if name not in tensors and name not in _OF_EACH_MODULE and not name.startswith(OWN_PREFIX):
            raise refuse_change(self, f"sets {name!r} of")
        super().__setattr__(name, value)

    def add_module(self, name: str, module: Any) -> None:
        """Refuse a module, which the forward pass would not call.

        Raises:
            Unsupported: Always.
        """
        raise refuse_change(self, f"adds the module {name!r} to")

    def register_parameter(self, name: str, param: Any) -> None:
        """Put another parameter in the place of one.

        Raises:
            Unsupported: There is none of this name, so that the forward pass would not look at it.
        """
        if name not in self._parameters:
            raise refuse_change(self, f"adds the parameter {name!r} to")
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Put another buffer in the place of one.

        Raises:
            Unsupported: There is none of this name, so that the forward pass would not look at it.
        """
        if name not in self._buffers:
            raise refuse_change(self, f"adds the buffer {name!r} to")
        super().register_buffer(name, tensor, persistent)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Load tensors by their names: OneFlow's, or those of the torch model, as its ``state_dict()`` gives them."""
        return super().load_state_dict({name: _as_loadable(name, value) for name, value in state_dict.items()}, strict)

    def register_forward_pre_hook(self, hook: Any) -> None:
        """Refuse a hook: only the whole model is called.

        Raises:
            Unsupported: Always.
        """
        raise _refuse_hook(self)

    def register_forward_hook(self, hook: Any) -> None:
        """Refuse a hook: only the whole model is called.

        Raises:
            Unsupported: Always.
        """
        raise _refuse_hook(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy it with its tensors, as OneFlow copies modules: without hooks."""
        made = memo[id(self)] = type(self).__new__(type(self))
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __copy__(self) -> Any:
        """Copy it with the same tensors."""
        made = type(self).__new__(type(self))
        made.__setstate__(self.__getstate__())
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled: no file can hold the forward pass.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(
            f"model: {_describe_part(self)} cannot be pickled. Save its state_dict(), and load that into the torch "
            "model's translation; copy.deepcopy copies it."
        )


def _as_loadable(name: str, value: Any) -> Any:
    """Make OneFlow's tensor of torch's, or of an array.

    Raises:
        SpecError: It is none of these, or no array of numbers can be made of it.
    """
    if isinstance(value, flow.Tensor):
        return value
    try:
        if hasattr(value, "detach"):  # torch's
            is_short = value.is_floating_point() and value.element_size() < 4
            array = read_tensor(value.float() if is_short else value)
        else:
            array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"it holds {array.dtype}")
        return flow.tensor(array)
    except Exception as error:  # whatever torch, NumPy or OneFlow raises of a tensor without numbers, or of odd ones
        raise SpecError(
            f"model: {name!r} of the state is a {type(value).__name__} that OneFlow cannot load: "
            f"{describe_error(error)}. Give tensors of numbers, as state_dict() has them."
        ) from error


_OF_EACH_MODULE = frozenset(vars(flow.nn.Module()))


def _describe_part(part: TranslatedPart) -> str:
    what, path = type(part).__name__, type(part).layered_lr_path
    return f"{path!r}, the {what} of a translated model," if path else f"this {what}, a translated model,"


def refuse_change(part: Any, what: str) -> Unsupported:
    """Make the error for a change of a part that the forward pass would not follow."""
    return Unsupported(
        f"model: {what} {_describe_part(part)} whose forward pass is that which torch's model had when it was traced, "
        "and would not follow. Change the torch model, and translate it again."
    )


def _refuse_hook(part: TranslatedPart) -> Unsupported:
    return Unsupported(
        f"model: a hook on {_describe_part(part)} would never be called, because only the whole model is. Put it on "
        "the whole; or on the torch module, and translate that again."
    )


class GraphConstants(flow.nn.Module):
    """Holds the arrays of a translated model that are no part of its state, so that a graph finds them."""


def list_parts(root: Module) -> dict[str, Module]:
    """Find every module of a translated model by each of its paths; the model itself is the empty path."""
    found: dict[str, Module] = {"": root}
    todo: list[tuple[str, Module]] = [("", root)]
    while todo:
        prefix, module = todo.pop()
        for name, child in module._modules.items():
            if isinstance(child, TranslatedPart):
                found[prefix + name] = child
                todo.append((f"{prefix}{name}.", child))
    return found
