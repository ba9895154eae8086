"""What a forward pass may do without calling one of torch's functions on its tensors, and what a trace cannot see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Protocol
from unittest.mock import patch

import torch
from torch.autograd.function import BackwardCFunction
from torch.nn.modules import module as of_all_modules

from layered_lr.errors import Unsupported
from layered_lr.models.graph import Node
from layered_lr_torch.torch_types import Module, Tensor

_OWN_GRADIENTS: Final = "A translated model has torch's own gradients only: leave it out, or train on a torch backend."
_GLOBAL_HOOKS: Final = (
    *("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks"),
)


class _Recorder(Protocol):
    def refuse(self, what: str, mend: str, source: str = ..., node: Node | None = ...) -> Unsupported: ...


_RECORDERS: Final[list[_Recorder]] = []


@contextmanager
def watch_what_is_hidden(recorder: _Recorder) -> Iterator[None]:
    """Refuse gradients of the user's own in a ``with`` block, and let what ``torch.compile`` has made run as written.

    Args:
        recorder: Makes the errors.
    """
    hooks = torch.autograd.graph.saved_tensors_hooks
    _RECORDERS.append(recorder)
    try:
        with ExitStack() as stack:
            stack.enter_context(patch.object(torch.autograd.Function, "apply", classmethod(_refuse_apply)))
            stack.enter_context(patch.object(hooks, "__enter__", _make_enter(hooks.__enter__)))
            stack.enter_context(patch.object(torch, "compile", _leave_as_written))
            stack.enter_context(_run_compiled_as_written())
            yield
    finally:
        _RECORDERS.pop()


def _refuse_apply(function: type, *_: Any, **__: Any) -> Any:
    raise _refuse_function(_RECORDERS[-1], function)


def _refuse_function(recorder: _Recorder, function: type, node: Node | None = None) -> Unsupported:
    return recorder.refuse(
        f"uses {function.__name__}, an autograd.Function with a gradient of its own",
        "Use torch's functions, or train on a torch backend.",
        node=node,
    )


def is_of_own_gradient(tensor: Tensor) -> bool:
    """Whether an ``autograd.Function`` gave a tensor; the model may have taken its ``apply`` before the trace."""
    return isinstance(tensor.grad_fn, BackwardCFunction)


def refuse_function(recorder: _Recorder, tensor: Tensor, node: Node | None) -> Unsupported:
    """Make the error for what an ``autograd.Function`` gave.

    Args:
        recorder: Makes the error.
        tensor: Was given.
        node: The last operator of the function; None if it has none.
    """
    made_by: Any = tensor.grad_fn
    return _refuse_function(recorder, made_by._forward_cls, node)


def _make_enter(enter: Callable[[Any], None]) -> Callable[[Any], None]:
    def refuse_own(hooks: Any) -> None:
        if not str(getattr(hooks.pack_hook, "__module__", "")).startswith("torch."):  # a checkpoint changes nothing
            raise _RECORDERS[-1].refuse(
                "calls saved_tensors_hooks, which may change what gradients are computed of", _OWN_GRADIENTS
            )
        enter(hooks)

    return refuse_own


def _leave_as_written(model: Any = None, **settings: Any) -> Any:
    """Stand in for ``torch.compile``."""
    return _leave_as_written if model is None else model


@contextmanager
def _run_compiled_as_written() -> Iterator[None]:
    """Let functions that ``torch.compile`` has made run as they were written, where torch can do that (from 2.6 on)."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        yield
        return
    with set_stance("force_eager"):
        yield


class HiddenNode:
    """Stands in the trace for the ``grad_fn`` of a tensor: it is there, and nothing can be done with it."""

    def __init__(self, recorder: _Recorder) -> None:
        self.__dict__["_recorder"] = recorder

    def __getattr__(self, name: str) -> Any:
        raise self._recorder.refuse(f"uses the grad_fn of a tensor ({name})", _OWN_GRADIENTS)


def refuse_gradient_hooks(model: Module) -> None:
    """Refuse hooks that may change gradients, which no forward pass shows, and hooks on all modules there are.

    Raises:
        Unsupported: There is one.
    """
    if any(getattr(of_all_modules, table, None) for table in _GLOBAL_HOOKS):
        raise Unsupported(
            "model: there is a hook on all modules (register_module_forward_hook, register_module_full_backward_hook "
            "and the like), which cannot be translated. Remove it, hook the modules that it is for where it leaves "
            "gradients alone, or train on a torch backend."
        )
    for path, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            raise _refuse_hook(f"module {path or type(module).__name__!r}")
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise _refuse_hook(f"parameter {name!r}")


def _refuse_hook(where: str) -> Unsupported:
    return Unsupported(f"model: {where} has a hook on its gradients, which cannot be translated. {_OWN_GRADIENTS}")
