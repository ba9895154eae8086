"""Updates of a user's model that are tried and taken back: model, gradients and random generators, bitwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module


def try_updates(
    optimizer: torch.optim.Optimizer,
    scheduler: PlanScheduler,
    batches: Iterable[Any],
    loss_of: Callable[[Any], torch.Tensor],
    steps: int,
) -> Iterator[tuple[float, list[float]]]:
    """Make updates of batches, which begin anew where they end.

    Args:
        optimizer: Of the model.
        scheduler: Of the optimizer.
        batches: Can be gone through again and again.
        loss_of: The loss of a batch.
        steps: How many updates.

    Yields:
        The loss of each update, and the rates that it was made at.
    """
    endless = _repeat(batches)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(next(endless))
        rates = [float(rate) for rate in scheduler.get_last_lr()]
        loss.backward()
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
        yield float(loss.detach()), rates


def loss_function(
    model: Module, loss_fn: Callable[[Any, Any], Any] | None, batch_loss: Callable[[Module, Any], Any] | None
) -> Callable[[Any], torch.Tensor]:
    """The loss of a batch, as the user says it, checked to be one number of a graph."""

    def loss_of(batch: Any) -> torch.Tensor:
        try:
            if batch_loss is not None:
                loss = batch_loss(model, batch)
            else:
                inputs, targets = _pair(batch)
                answer = model(inputs)
                loss = (
                    torch.nn.functional.cross_entropy(answer, targets) if loss_fn is None else loss_fn(answer, targets)
                )
        except LayeredLRError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise SpecError(f"find_lr: the loss of a batch cannot be computed: {describe_error(error)}") from error
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            what = f"of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
            raise SpecError(
                f"find_lr: the loss is {what}; must be a tensor with one number, computed from the model's parameters."
            )
        return loss.reshape(())

    return loss_of


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise SpecError(
            f"find_lr: a batch is a {type(batch).__name__}; must be (inputs, targets). Give batch_loss=..., a function "
            "of the model and the batch, for batches of another kind."
        )
    return batch[0], batch[1]


def _repeat(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise SpecError("find_lr: batches has no batch.")


@contextmanager
def all_kept(model: Module, batches: Iterable[Any]) -> Iterator[None]:
    """Give back at the end, bitwise, what updates change.

    That are the model's tensors, gradients, modes, hooks and switches of gradients; and the generators of torch (on
    the CPU and on each GPU), of NumPy, of Python, and of a ``DataLoader``.

    Args:
        model: The user's.
        batches: A ``DataLoader``, or anything else.
    """
    tensors = [*model.parameters(), *model.buffers()]
    held = [(table, dict(table)) for module in model.modules() for table in _tables_of(module)]
    copies = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    contents = [None if gradient is None else gradient.detach().clone() for _, gradient, _ in gradients]
    modes = [(module, module.training) for _, module in list_modules(model)]
    give_back = _keep_generators(batches)
    try:
        yield
    finally:
        for table, entries in held:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
            for (parameter, gradient, switch), content in zip(gradients, contents, strict=True):
                parameter.requires_grad_(switch)
                parameter.grad = gradient
                if gradient is not None and content is not None:
                    gradient.copy_(content)
        for module, mode in modes:
            module.training = mode
        give_back()


def _tables_of(module: Module) -> list[dict[Any, Any]]:
    """What a module holds in tables: tensors, in whose place it may put others, and hooks, which phases add."""
    hooks = [table for name, table in vars(module).items() if "_hooks" in name and isinstance(table, dict)]
    return [module._parameters, module._buffers, *hooks]


def _keep_generators(batches: Iterable[Any]) -> Callable[[], None]:
    """Read the states of all random generators, and return what sets them again."""
    own = [generator for generator in map(_generator_of, _parts(batches)) if generator is not None]
    states = [(generator, generator.get_state()) for generator in own]
    cpu, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None

    def give_back() -> None:
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in states:
            generator.set_state(state)

    return give_back


def _parts(batches: Any) -> list[Any]:
    """A loader and its samplers, each of which may have a generator of its own."""
    batch_sampler = getattr(batches, "batch_sampler", None)
    return [batches, getattr(batches, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]


def _generator_of(part: Any) -> torch.Generator | None:
    generator = getattr(part, "generator", None)
    return generator if isinstance(generator, torch.Generator) else None


def tried(
    model: Module, batches: Iterable[Any], seed: int | None, updates: Callable[[], Iterator[tuple[float, list[float]]]]
) -> Generator[tuple[float, list[float]], None, None]:
    """Make updates, and take them back when the generator ends or is closed.

    Args:
        model: The user's.
        batches: Of the updates.
        seed: Of all generators; None leaves them as they are.
        updates: Begins the updates, the model in training mode.
    """
    with all_kept(model, batches):
        if seed is not None:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
        model.train()
        yield from updates()
