"""``compile``, ``attach``, ``save_state``, ``load_state``: for a training loop of the user's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from layered_lr.arrays import COUNTS, Array, Slots, fits_parameter
from layered_lr.backend.base import LoopOptimizer, LoopScheduler
from layered_lr.backend.loading import backend_of, load_attach
from layered_lr.counts import whole_number
from layered_lr.errors import CheckpointError, SpecError
from layered_lr.files import as_path, one_line, open_plain
from layered_lr.guesses import explain_names
from layered_lr.models.matching import match_names
from layered_lr.models.nn_modules import Module, Tensor, framework_of, list_modules, parameters_of
from layered_lr.plans.float32_range import check_range
from layered_lr.plans.resolve import resolve
from layered_lr.registry import load_checkpoint_reader
from layered_lr.spec.spec import Spec
from layered_lr.state.state_files import check_replaceable, read_state, write_state
from layered_lr.state.training_state import TrainingState, explain_wrapper, summarise

Graph: TypeAlias = Any
"""A ``oneflow.nn.Graph``. ``Any``, because OneFlow is not imported here."""


@explain_names("loop")
def save_state(
    path: str | os.PathLike[str], model: Module, optimizer: LoopOptimizer, scheduler: LoopScheduler = None
) -> None:
    """Save everything that the next update of a training loop depends on, to a folder, completely or not at all.

    The file ``weights.safetensors`` in it can be read without this library. Nothing in the folder is a pickle.

    Args:
        path: The folder; a state that is already there is replaced. Its parent must exist.
        model: A model of torch or OneFlow.
        optimizer: The optimizer of the model: from ``compile``, or any optimizer of torch. Or the ``oneflow.nn.Graph``
            that ``attach`` was called for; the graph's own counter says how many updates were made.
        scheduler: The scheduler from ``compile`` or ``attach``. With torch it may be None, if the user has another one.

    Raises:
        CheckpointError: The state cannot be written, or the path is something other than a state.
        SpecError: The optimizer is not the model's, or the scheduler is not from ``compile`` or ``attach``.
        Unsupported: The model has global tensors of OneFlow.

    Example:
        With a graph, give the graph and its scheduler from ``attach``: ``save_state(path, model, graph, scheduler)``.

        >>> import tempfile
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Linear(8, 2)
        >>> optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9)), model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ll.save_state(f"{folder}/state", model, optimizer, scheduler)
    """
    folder = as_path("save_state: path", path)
    check_replaceable(folder)
    write_state(folder, backend_of(model).export_loop(model, optimizer, scheduler))


@explain_names("loop")
def load_state(
    source: str | os.PathLike[str] | Mapping[str, Any],
    model: Module,
    optimizer: LoopOptimizer,
    scheduler: LoopScheduler = None,
    *,
    names: Sequence[str] | None = None,
    step: int | None = None,
) -> None:
    """Continue a training loop from a state of ``save_state``, of either framework, or from a ``state_dict`` of torch.

    The optimizer's slots go to the parameters with the same names, whatever their groups are. Rates and other
    hyperparameters stay as they are in ``optimizer``. If the state does not fit, nothing changes. With torch, a model
    with random numbers continues with the same ones; OneFlow 0.9 cannot restore its generators.

    Args:
        source: The folder of ``save_state`` or of a checkpoint. Or torch's own ``optimizer.state_dict()``, or the
            ``.pth`` or ``.pt`` file that has it, perhaps under ``"optimizer"`` (only tensors are unpickled). Such a
            ``state_dict`` contains no weights: the model keeps its own.
        model: The model whose weights are loaded.
        optimizer: Its optimizer or graph, as in ``save_state``.
        scheduler: Its scheduler, as in ``save_state``. It continues at the update of the state.
        names: Only for a plain ``state_dict``: the names of its parameters, in the order of its groups. None is the
            order of ``model.parameters()``; if there are several groups, names are needed, unless torch has saved them
            (``torch.optim.SGD(model.named_parameters())``).
        step: Only for a plain ``state_dict``: updates made so far; None is the largest counter in it.

    Raises:
        CheckpointError: The state is missing, damaged, of another optimizer, or does not fit; the message names the
            differences.
        SpecError: The optimizer is not the model's, the scheduler is not from ``compile`` or ``attach``, or an argument
            does not fit the source.
        Unsupported: The model has global tensors of OneFlow.

    Example:
        A graph may be given before or after its first call: ``load_state(path, model, graph, scheduler)``.

        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Linear(8, 2)
        >>> old_optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9), schedule=ll.StepLR(1000)), model)
        >>> ll.load_state(old_optimizer.state_dict(), model, optimizer, scheduler, step=1200)
        >>> scheduler.get_last_lr()
        [0.010000000000000002]
    """
    backend = backend_of(model)
    plain = _find_plain(source)
    if plain is not None:
        state = _from_plain(plain, model, names, step, needs_step=scheduler is not None)
    elif names is not None or step is not None:
        raise SpecError("names=... and step=... are for a plain state_dict; a saved state has both: leave them out.")
    else:
        state = read_state(as_path("load_state: source", source))  # a mapping is always plain
        state = state.rename(match_names({*state.weights, *state.slots, *state.unsaved}, _list_names(model)))
    backend.import_loop(state, model, optimizer, scheduler)


def _list_names(model: Module) -> list[str]:
    """The names of a model's parameters and buffers."""
    return [
        prefix + name
        for prefix, module in list_modules(model)
        for table in (module._parameters, module._buffers)
        for name, tensor in table.items()
        if tensor is not None
    ]


def _find_plain(source: object) -> Mapping[str, Any] | None:
    """Return the optimizer's own ``state_dict`` in a source; None if the source is a folder of ``save_state``."""
    loaded = source
    if not isinstance(source, Mapping):
        if not isinstance(source, str | os.PathLike):
            raise SpecError(f"load_state: got a {type(source).__name__}; must be a path or a state_dict.")
        path = as_path("load_state: source", source)
        if path.suffix not in (".pth", ".pt"):
            return None
        try:
            open_plain(path).close()  # a FIFO or a device may never end
            loaded = load_checkpoint_reader()(path)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: there is no such file.") from None
        except Exception as error:  # torch, pickle and zipfile raise many kinds of errors
            raise CheckpointError(f"{path}: not a readable file of tensors: {one_line(error)}") from None
    for found in (loaded, loaded.get("optimizer") if isinstance(loaded, Mapping) else None):
        if isinstance(found, Mapping) and {"state", "param_groups"} <= found.keys():
            return found
    raise CheckpointError(
        "this is not an optimizer.state_dict(): it has no 'state' and 'param_groups', and no dict with them under "
        "'optimizer'."
    )


def _from_plain(
    table: Mapping[str, Any], model: Module, names: Sequence[str] | None, step: int | None, needs_step: bool
) -> TrainingState:
    try:
        order = list(_name_indices(table["param_groups"], model, names))
        slots = {
            name: {
                slot: _copy_slot(slot, value)
                for slot, value in table["state"].get(index, {}).items()
                if value is not None
            }
            for index, name in order
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError | SpecError):
            raise
        raise CheckpointError(f"not an optimizer.state_dict() of torch: {one_line(error)}") from None
    _check_shapes(slots, model)
    counts = [_count_of(name, kept["step"]) for name, kept in slots.items() if "step" in kept]
    if step is None and not counts and needs_step:
        raise SpecError("the state_dict does not say how many updates were made: give step=..., such as step=1200.")
    made = max(counts, default=0) if step is None else whole_number("step", step, 0)
    return TrainingState(made, "", {}, {name: kept for name, kept in slots.items() if kept})


def _name_indices(
    groups: Sequence[Mapping[str, Any]], model: Module, names: Sequence[str] | None
) -> Iterator[tuple[int, str]]:
    """Yield each parameter's index in a ``state_dict`` with its name."""
    indices = [index for group in groups for index in group["params"]]
    known = [(parameter.name, tensor) for parameter, tensor in parameters_of(model)]
    noted = [name for group in groups for name in group.get("param_names", ())]
    if names is None and len(noted) == len(indices):
        names = noted
    if names is None and len(groups) > 1:
        raise SpecError(
            f"the state_dict has {len(groups)} groups, but not the names of their parameters: give names=[...] in the "
            "order of the groups, such as [name for name, _ in model.named_parameters()] if that is their order."
        )
    if names is None:
        names = [name for name, _ in known]
        if len(names) != len(indices):
            names = [name for name, tensor in known if tensor.requires_grad]
    if len(names) != len(indices):
        raise CheckpointError(
            f"the state_dict has {len(indices)} parameters, but there are {len(names)} names: give names=[...] of the "
            "parameters that it has."
        )
    own_names = match_names(names, (name for name, _ in known))
    names = [own_names[name] for name in names]
    if len(set(names)) < len(names):
        raise CheckpointError("names=[...] has a name twice; give every parameter once.")
    if odd := sorted(set(names) - {name for name, _ in known}):
        raise CheckpointError(
            f"the model has no parameter {summarise([repr(name) for name in odd])}."
            f"{explain_wrapper(names, [name for name, _ in known])}"
        )
    yield from zip(indices, names, strict=True)


def _count_of(name: str, counter: Array) -> int:
    if counter.size == 1 and counter.dtype.kind in "fiu" and 0 <= counter.item() < 2**53:
        return int(counter.item())
    raise CheckpointError(f"step of {name!r} in the state_dict is {counter!r:.60}: must be a count of updates.")


def _check_shapes(slots: Slots, model: Module) -> None:
    shapes = {parameter.name: parameter.shape for parameter, _ in parameters_of(model)}
    wrong = [
        f"{slot} of {name!r} has shape {array.shape}, but the parameter has {shapes[name]}"
        for name, kept in slots.items()
        for slot, array in kept.items()
        if not fits_parameter(slot, array.shape, shapes[name])
    ]
    if wrong:
        raise CheckpointError(
            f"the state_dict does not fit the model: {summarise(wrong)}. If its parameters are in another order than "
            "the model's, give names=[...] in that order."
        )


def _copy_slot(slot: str, value: Tensor) -> Array:
    array = value.detach().cpu().numpy().copy() if hasattr(value, "detach") else np.array(value)
    return array.astype(np.float64) if slot in COUNTS else array


@explain_names("loop")
def compile(
    spec: Spec, model: Module, total_steps: int | None = None, steps_per_epoch: int | None = None
) -> tuple[LoopOptimizer, LoopScheduler]:
    """Make the framework's own optimizer for a model, and a scheduler, for your own training loop.

    Args:
        spec: Groups, optimizer and schedule.
        model: A ``torch.nn.Module`` or a ``oneflow.nn.Module`` (in eager mode; use ``attach`` for a Graph).
        total_steps: Updates of the whole run, if a schedule needs it.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.

    Returns:
        A ``torch.optim`` or ``oneflow.optim`` optimizer with one param group for each group of the plan, and a
        scheduler with ``step()``, ``get_last_lr()``, ``state_dict()`` and ``load_state_dict()``. The scheduler sets
        rates that are already multiplied by ``lr_scale``. If the spec has phases, ``step()`` also begins the next one:
        it freezes and unfreezes parameters, and changes the settings that the phase changes.

    Raises:
        SpecError: The spec does not fit the model, or the model is not an ``nn.Module``.
        Unsupported: The framework's optimizer differs from torch's, or the spec has phases that one optimizer cannot go
            through, because one switches to another kind.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("0", lr_scale=0.5)], schedule=ll.StepLR(2, gamma=0.5))
        >>> optimizer, scheduler = ll.compile(spec, model)
        >>> for _ in range(2):
        ...     optimizer.zero_grad(set_to_none=True)
        ...     model(torch.ones(4, 8)).sum().backward()
        ...     optimizer.step()
        ...     scheduler.step()  # after every update, also if a schedule counts epochs
        >>> scheduler.get_last_lr()
        [0.025, 0.05]
    """
    backend = backend_of(model)
    plan = resolve(spec, model, total_steps, steps_per_epoch)
    check_range(plan)
    return backend.compile(plan, model)


@explain_names("loop")
def attach(
    spec: Spec,
    graph: Graph,
    model: Module,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    step: int = 0,
) -> LoopScheduler:
    """Put a spec into your own ``oneflow.nn.Graph``, with OneFlow's native ``lr_scale`` and schedules.

    When the graph is called for the first time, all gradients that the model's parameters have are dropped, because
    OneFlow would compile them in.

    Args:
        spec: Groups, optimizer and schedule.
        graph: The graph. Call ``attach`` in its ``__init__``, after ``super().__init__()``.
        model: The ``oneflow.nn.Module`` that the graph trains.
        total_steps: Updates of the whole run, if a schedule needs it or becomes a table.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.
        step: Only for a spec with phases: updates made so far. The graph trains the phase of the next one, and refuses
            calls after the phase's end. Make a graph for each phase; hand over by ``save_state`` and ``load_state``.

    Returns:
        A scheduler with ``plan``, ``step()``, ``get_last_lr()``, ``state_dict()`` and ``load_state_dict()``. Only
        ``ReduceLROnPlateau`` needs its ``step(metrics=...)``: all other rates follow the graph's own counter.

    Raises:
        SpecError: The spec does not fit the model, ``graph`` is not a graph, or the graph is already compiled or has an
            optimizer for one of these parameters.
        Unsupported: OneFlow's Graph cannot do the schedule or the optimizer exactly, or a phase switches to another
            kind of optimizer.

    Example:
        >>> import oneflow
        >>> import layered_lr as ll
        >>> class TrainGraph(oneflow.nn.Graph):
        ...     def __init__(self, model, spec):
        ...         super().__init__()
        ...         self.model = model
        ...         self.scheduler = ll.attach(spec, self, model, total_steps=7820)
        ...     def build(self, images):
        ...         loss = self.model(images).sum()
        ...         loss.backward()
        ...         return loss
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("0", lr_scale=0.5)], schedule=ll.StepLR(1000))
        >>> graph = TrainGraph(oneflow.nn.Sequential(oneflow.nn.Linear(8, 8), oneflow.nn.Linear(8, 2)), spec)
        >>> graph.scheduler.plan.lr(0)
        {'0': 0.05, 'rest': 0.1}
    """
    if framework_of(model) != "oneflow":
        raise SpecError(
            f"attach: model is a {type(model).__name__}; must be the oneflow.nn.Module that the graph trains."
        )
    attach_plan = load_attach()
    plan = resolve(spec, model, total_steps, steps_per_epoch)
    check_range(plan)
    step = whole_number("attach: step", step, 0)
    if step and not plan.phases:
        raise SpecError(f"attach: step={step} is for a spec with phases; leave it out, and continue by ll.load_state.")
    return attach_plan(plan, graph, model, step)
