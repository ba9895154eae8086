"""Models whose ``train()`` or ``eval()`` does more than to switch the mode: a translation only switches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from layered_lr.errors import Unsupported
from layered_lr_torch.torch_types import Module, Tensor
from layered_lr_torch.trace_attributes import list_tables
from layered_lr_torch.trace_contents import digest
from layered_lr_torch.trace_memory import put_back

_ORDER = (True, False, True, False)


def set_mode(model: Module, trains: bool) -> None:
    """Switch the mode as a trainer does."""
    if trains:
        model.train()
    else:
        model.eval()


def check_switches(model: Module) -> None:
    """Refuse a model of which a switch changes tensors, or something else each time.

    Args:
        model: Stays as it is.

    Raises:
        Unsupported: It does.
    """
    if not any(_switches_by_itself(module) for module in model.modules()):
        return
    with put_back(model), _drawn_anew(model) as find_changed:
        first, first_evaluation, second, second_evaluation = [_describe_in(model, trains) for trains in _ORDER]
        changed = (
            find_changed()
            or _find_other(first, second)
            or _find_other(first_evaluation, second_evaluation)
            or _find_other(first, first_evaluation, of_tensors=True)
        )
    if changed:
        raise Unsupported(
            f"model: its train() or eval() changes {changed!r}. A translation has the modes alone, so it cannot be "
            "translated. Do this in forward, or train on a torch backend."
        )


@contextmanager
def _drawn_anew(model: Module) -> Iterator[Callable[[], str]]:
    """Give parameters and buffers other numbers in a ``with`` block: to add a product with zeros changes none.

    Yields:
        Finds the name of one that has changed since; empty if none has.
    """
    named = {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers()) if _is_own(tensor)}
    kept = {name: tensor.detach().clone() for name, tensor in named.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in named.values():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
    drawn = {name: tensor.detach().clone() for name, tensor in named.items()}
    try:
        yield lambda: next((name for name, numbers in drawn.items() if not torch.equal(named[name], numbers)), "")
    finally:
        with torch.no_grad():
            for name, numbers in kept.items():
                named[name].copy_(numbers)


def _is_own(tensor: Tensor) -> bool:
    """Whether each number of a tensor has memory of its own, and can be written."""
    return all(size <= 1 or stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _switches_by_itself(module: Module) -> bool:
    own = torch.nn.Module
    is_plain = type(module).train is own.train and type(module).eval is own.eval
    return not is_plain or "train" in module.__dict__ or "eval" in module.__dict__


def _describe_in(model: Module, trains: bool) -> dict[str, Any]:
    """What attributes, parameters and buffers are in a mode: tensors themselves, and digests of everything else."""
    set_mode(model, trains)
    found: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for table in list_tables(model):
        for key in table.keys:
            value = table.values[key]
            if key != "training":
                found[f"{table.path}{key}"] = value if isinstance(value, torch.Tensor) else digest(value)
    return found


def _find_other(one: Mapping[str, Any], other: Mapping[str, Any], of_tensors: bool = False) -> str:
    """Find something that is another one at another time, also where it is there at one time only; empty if nothing is.

    Args:
        one: From ``_describe_in``.
        other: Likewise.
        of_tensors: Whether only tensors count, because what else there is may follow the mode.
    """
    for path in {**one, **other}:
        was, now = one.get(path), other.get(path)
        is_tensor = isinstance(was, torch.Tensor) or isinstance(now, torch.Tensor)
        if was is not now if is_tensor else was != now and not of_tensors:
            return path
    return ""
