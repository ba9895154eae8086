"""The state of a loop of the user's own: saved and loaded by parameter name, whatever the groups are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Array
from layered_lr.backend.loading import backend_of, load_attach
from layered_lr.counts import whole_number
from layered_lr.errors import CheckpointError, SpecError, Unsupported
from layered_lr.files import one_line
from layered_lr.models.nn_modules import framework_of, parameters_of
from layered_lr.plans.resolve import resolve
from layered_lr.registry import load_checkpoint_reader
from layered_lr.spec.spec import Spec
from layered_lr.state.state_files import check_replaceable, read_state, write_state
from layered_lr.state.training_state import TrainingState, summarise

_COUNTS = ("step", "mu_product")  # float64 in a state, whatever the framework has


def save_state(path: str | os.PathLike[str], model: Any, optimizer: Any, scheduler: Any = None) -> None:
    """Write the state of a training loop to a folder, whole or not at all: everything that the next update depends on.

    ::

        layered_lr.save_state("state", model, optimizer, scheduler)
        layered_lr.save_state("state", model, graph, graph.scheduler)  # scheduler: what attach gave in the graph

    Its ``weights.safetensors`` opens without this library. Nothing in the folder is a pickle.

    Args:
        path: The folder; a state that is there already is replaced. Its parent must be there.
        model: Of torch or OneFlow.
        optimizer: Its optimizer; of torch from ``compile`` or not, of OneFlow from ``compile``. Or the
            ``oneflow.nn.Graph`` that a spec was attached to, whose own count of updates is the state's.
        scheduler: From ``compile`` or ``attach``; with torch, None leaves the schedule to the user.

    Raises:
        CheckpointError: It cannot be written, or something else than a state is there.
        SpecError: Not the model's optimizer, or a scheduler that is not from ``compile`` or ``attach``.
        Unsupported: Global tensors of OneFlow.
    """
    check_replaceable(Path(path))
    write_state(Path(path), backend_of(model).export_loop(model, optimizer, scheduler))


def load_state(
    source: str | os.PathLike[str] | Mapping[str, Any],
    model: Any,
    optimizer: Any,
    scheduler: Any = None,
    *,
    names: Sequence[str] | None = None,
    step: int | None = None,
) -> None:
    """Go on from a saved state: of ``save_state``, in either framework, or of a loop without this library.

    ::

        layered_lr.load_state("state", model, optimizer, scheduler)
        layered_lr.load_state("state", model, graph, graph.scheduler)  # before or after the graph's first call
        layered_lr.load_state(old_optimizer.state_dict(), model, optimizer, scheduler, step=1200)

    What the optimizer keeps goes to the parameters of the same names, however they are grouped; rates and other
    hyperparameters stay as they are in ``optimizer``. A state that does not fit changes nothing. A model that draws
    random numbers goes on with the same ones on torch; OneFlow 0.9 cannot restore its generators.

    Args:
        source: The folder of ``save_state`` or of a checkpoint; or torch's own ``optimizer.state_dict()``, or the
            ``.pth`` or ``.pt`` that it was saved to, perhaps under ``"optimizer"`` (nothing but tensors is unpickled).
            The weights are not in such a dict: the model keeps its own.
        model: Whose weights are loaded.
        optimizer: Its optimizer or graph, as for ``save_state``.
        scheduler: As for ``save_state``; goes on at the state's update.
        names: Of the parameters of a plain ``state_dict``, in the order in which its groups list them. None is the
            order of ``model.parameters()``, which has to be said where there are several groups, unless torch has
            noted the names (``torch.optim.SGD(model.named_parameters())``).
        step: Updates made so far, of a plain ``state_dict``; None is the largest of its counts.

    Raises:
        CheckpointError: The state is missing, damaged, of another optimizer, or does not fit; each difference is named.
        SpecError: As for ``save_state``, or arguments that do not go with the source.
        Unsupported: As for ``save_state``.
    """
    backend = backend_of(model)
    plain = _find_plain(source)
    if plain is not None:
        state = _from_plain(plain, model, names, step, needs_step=scheduler is not None)
    elif names is not None or step is not None:
        raise SpecError("names=... and step=... are for a plain state_dict; this source says them itself.")
    else:
        state = read_state(Path(source))  # type: ignore[arg-type] # a mapping is plain
    backend.import_loop(state, model, optimizer, scheduler)


def _find_plain(source: Any) -> Mapping[str, Any] | None:
    """The optimizer's own ``state_dict`` in a source; None for a folder of ours."""
    loaded = source
    if not isinstance(source, Mapping):
        if not isinstance(source, str | os.PathLike):
            raise SpecError(f"load_state: got a {type(source).__name__}; must be a path or a state_dict.")
        path = Path(source)
        if path.suffix not in (".pth", ".pt"):
            return None
        try:
            loaded = load_checkpoint_reader()(path)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file.") from None
        except Exception as error:  # whatever torch, pickle and zip raise
            raise CheckpointError(f"{path}: not a readable file of tensors: {one_line(error)}") from None
    for found in (loaded, loaded.get("optimizer") if isinstance(loaded, Mapping) else None):
        if isinstance(found, Mapping) and {"state", "param_groups"} <= found.keys():
            return found
    raise CheckpointError(
        "there is no optimizer.state_dict() in it: it has no 'state' and 'param_groups', and none under 'optimizer'."
    )


def _from_plain(
    table: Mapping[str, Any], model: Any, names: Sequence[str] | None, step: int | None, needs_step: bool
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
    counts = [int(kept["step"]) for kept in slots.values() if "step" in kept]
    if step is None and not counts and needs_step:
        raise SpecError("the state_dict does not say how many updates were made: give step=..., such as step=1200.")
    made = max(counts, default=0) if step is None else whole_number("step", step, 0)
    return TrainingState(made, "", {}, {name: kept for name, kept in slots.items() if kept})


def _name_indices(groups: Any, model: Any, names: Sequence[str] | None) -> Iterator[tuple[int, str]]:
    """Each index of a state with its parameter's name."""
    indices = [index for group in groups for index in group["params"]]
    known = [(parameter.name, tensor) for parameter, tensor in parameters_of(model)]
    noted = [name for group in groups for name in group.get("param_names", ())]
    if names is None and len(noted) == len(indices):
        names = noted
    if names is None and len(groups) > 1:
        raise SpecError(
            f"the state_dict has {len(groups)} groups, and nothing says whose parameters these are: give names=[...] "
            "in the order of the groups, such as [name for name, _ in model.named_parameters()] where that is theirs."
        )
    if names is None:
        names = [name for name, _ in known]
        if len(names) != len(indices):
            names = [name for name, tensor in known if tensor.requires_grad]
    if len(names) != len(indices):
        raise CheckpointError(
            f"the state_dict has {len(indices)} parameters, and there are {len(names)} names: give names=[...] of "
            "those that it has."
        )
    if len(set(names)) < len(names):
        raise CheckpointError("a name stands twice in names=[...]; every parameter must be there once.")
    if odd := sorted(set(names) - {name for name, _ in known}):
        raise CheckpointError(f"the model has no parameter {summarise([repr(name) for name in odd])}.")
    yield from zip(indices, names, strict=True)


def _check_shapes(slots: Mapping[str, Mapping[str, Array]], model: Any) -> None:
    shapes = {parameter.name: parameter.shape for parameter, _ in parameters_of(model)}
    wrong = [
        f"{slot} of {name!r} has shape {array.shape}, the parameter's is {shapes[name]}"
        for name, kept in slots.items()
        for slot, array in kept.items()
        if array.shape not in ((), shapes[name])
    ]
    if wrong:
        raise CheckpointError(
            f"the state_dict does not fit the model: {summarise(wrong)}. If its parameters come in another order than the "
            "model's, give names=[...] in theirs."
        )


def _copy_slot(slot: str, value: Any) -> Array:
    array = value.detach().cpu().numpy().copy() if hasattr(value, "detach") else np.array(value)
    return array.astype(np.float64) if slot in _COUNTS else array


_WITHOUT_PHASES = "Use ll.run, or give each phase a spec, an optimizer or a graph of its own."


def compile(
    spec: Spec, model: Any, total_steps: int | None = None, steps_per_epoch: int | None = None
) -> tuple[Any, Any]:
    """The framework's own optimizer for a model, and a scheduler, for a training loop of one's own.

    ::

        optimizer, scheduler = layered_lr.compile(spec, model, total_steps=7820)
        for images, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            loss(model(images), labels).backward()
            optimizer.step()
            scheduler.step()  # after every update, also where a schedule counts epochs

    Args:
        spec: Groups, optimizer and schedule.
        model: A ``torch.nn.Module`` or a ``oneflow.nn.Module`` (eager mode; in a Graph use ``attach``).
        total_steps: Updates of the whole run, if a schedule needs it.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.

    Returns:
        A ``torch.optim`` or ``oneflow.optim`` optimizer with one param group per group of the plan, and a
        scheduler with ``step()``, ``get_last_lr()``, ``state_dict()`` and ``load_state_dict()``. ``lr_scale`` is
        folded into the rates that the scheduler sets. Where the spec has phases, ``step()`` also begins the next one:
        it freezes and unfreezes, and changes what the phase says otherwise.

    Raises:
        SpecError: The spec does not fit the model, or the model is none.
        Unsupported: The framework's optimizer does not do what torch's does; phases that one optimizer cannot go
            through (a switch to another one), or any in OneFlow.
    """
    backend = backend_of(model)
    plan = resolve(spec, model, total_steps, steps_per_epoch)
    if plan.phases and not backend.compiles_phases:
        raise Unsupported(f"compile: phases in a loop of your own do not work with {backend.name!r}. {_WITHOUT_PHASES}")
    return backend.compile(plan, model)


def attach(
    spec: Spec, graph: Any, model: Any, total_steps: int | None = None, steps_per_epoch: int | None = None
) -> Any:
    """Put a spec into a ``oneflow.nn.Graph`` of one's own, with OneFlow's native ``lr_scale`` and schedules.

    ::

        class TrainGraph(oneflow.nn.Graph):
            def __init__(self):
                super().__init__()
                self.model = model
                self.scheduler = layered_lr.attach(spec, self, model, total_steps=7820)

    Gradients that the model's parameters hold when the graph is first called are dropped: OneFlow would compile
    them in.

    Args:
        spec: Groups, optimizer and schedule.
        graph: The graph, in its ``__init__``, after ``super().__init__()``.
        model: The ``oneflow.nn.Module`` that the graph trains.
        total_steps: Updates of the whole run, if a schedule becomes a table.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.

    Returns:
        A scheduler with ``plan``, ``step()``, ``get_last_lr()``, ``state_dict()`` and ``load_state_dict()``. Only
        ``ReduceLROnPlateau`` needs it, for ``step(metrics=...)``: all other rates follow the graph's own counter.

    Raises:
        SpecError: The spec does not fit the model; not a graph; a graph that is compiled already or has an
            optimizer for one of these parameters.
        Unsupported: A schedule or an optimizer that OneFlow's Graph cannot do exactly, or phases.
    """
    if framework_of(model) != "oneflow":
        raise SpecError(
            f"attach: model is a {type(model).__name__}; must be the oneflow.nn.Module that the graph trains."
        )
    attach_plan = load_attach()
    plan = resolve(spec, model, total_steps, steps_per_epoch)
    if plan.phases:
        raise Unsupported(f"attach: a graph is compiled once, and cannot go from phase to phase. {_WITHOUT_PHASES}")
    return attach_plan(plan, graph, model)
