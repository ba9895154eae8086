"""The dynamic lowering: updates inside a graph whose rates and momenta may change between two of its calls.

OneFlow compiles an optimizer's schedule into the graph. Here the graph has no optimizer: update ops are dispatched at
the end of ``build`` and read the rates from buffers.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float64, Slots
from layered_lr.errors import CheckpointError, SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.eager_tensors import sync, write_tensor
from layered_lr_oneflow.oneflow_types import Device, Graph, LazyLookup, Module, Tensor
from layered_lr_oneflow.parameter_counters import ParameterCounters
from layered_lr_oneflow.rate_buffers import MOMENTUM, RATE, RateBuffers, Tables
from layered_lr_oneflow.rules import AnyRule, RateAndMomentum, make_rule, make_slots
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.tracing import check_no_grad_scaler, get_build, make_lazy_lookup

ATTRIBUTE = "layered_lr_updates"  # of the graph: the module of buffers; it also begins their names


class _UpdatePart(NamedTuple):
    """Parameters of one group that share an update rule.

    Args:
        group: The plan group's name.
        rule: How they are updated.
        names: Names of those that can be trained.
        counters: Their counters.
    """

    group: str
    rule: AnyRule
    names: tuple[str, ...]
    counters: ParameterCounters


class DynamicUpdate:
    """The updates of a plan as ops of one graph, at rates that may change while it runs.

    A group's rate is the plan's rate of step 0 until ``set`` changes it. Or it follows a table inside the graph, which
    needs nothing between calls and costs the same at any length. Momenta work in the same way.

    As in torch, parameters with ``requires_grad=False``, and those that the loss does not depend on, stay as they are.
    A parameter of several names is updated once, with the sum of its gradients.

    Args:
        plan: Made for this model.
        model: Call ``to(device)`` and freeze its parameters before: neither may change later.
        rate_tables: For some groups, the rate of every update, already multiplied by ``lr_scale``; after the table's
            end its last rate stays.
        momentum_tables: For some groups, the momentum of every update, in the same way.
        varying_momentum: Names of groups whose momentum ``set`` may change; others are compiled in, which is faster.

    Raises:
        SpecError: A group that the plan does not have, a varying momentum for a group that has none, or a table that
            is empty or holds NaN, infinite or negative numbers.
        Unsupported: Parameters of several dtypes or devices, global ones, or of another dtype than
            float32 and float64; a momentum table with a 0 in it.
    """

    def __init__(
        self,
        plan: Plan,
        model: Module,
        *,
        rate_tables: Tables | None = None,
        momentum_tables: Tables | None = None,
        varying_momentum: Collection[str] = (),
    ) -> None:
        momentum_tables = momentum_tables or {}
        varies = {*varying_momentum, *momentum_tables}
        if unknown := sorted(varies - {group.name for group in plan.groups}):
            raise SpecError(
                f"varying momentum of {unknown[0]!r}: the plan's groups are {', '.join(g.name for g in plan.groups)}. "
                "Name one of these."
            )
        momenta = {group.name: group.optimizer.first_momentum for group in plan.groups}
        if without := [name for name in momenta if name in varies and not momenta[name]]:
            raise SpecError(
                f"varying momentum of {without[0]!r}: the group's optimizer has none. Give it a momentum, or leave the "
                "group out."
            )
        self._parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        device = _find_device(self._parameters)
        rates = plan.rates(plan.since)
        self._numbers = RateBuffers(momenta, varies, rates, rate_tables or {}, momentum_tables, device)
        self._parts: list[_UpdatePart] = []
        self._slots: dict[str, dict[str, Tensor]] = {}
        for group in plan.groups:
            for part in group.parts:
                names = tuple(name for name in part.parameters if self._parameters[name].requires_grad)
                rule = make_rule(part.optimizer)
                self._parts.append(
                    _UpdatePart(group.name, rule, names, ParameterCounters(names, rule.counters, device))
                )
                self._slots |= {name: make_slots(rule, self._parameters[name]) for name in names}
        self._updated: tuple[str, ...] = ()

    @property
    def updated(self) -> tuple[str, ...]:
        """Names of the parameters that the graph updates; empty before its first call."""
        return self._updated

    def bind(self, graph: Graph) -> None:
        """Let each call of a graph end with the updates; call this once, in the graph's ``__init__``.

        The graph's ``build`` needs only its own ``loss.backward()``. If it changes the gradients after that (to clip
        them), the updates use the changed ones. Gradients from eager mode are dropped before the graph is traced
        (OneFlow would add them to every step), and those of the trace after it.

        Raises:
            SpecError: The graph has updates already. At its first call: ``build`` computes no gradient, or a parameter
                is not in the graph. OneFlow cannot trace a graph again after that: make a new one.
            Unsupported: At the graph's first call: it accumulates gradients.
        """
        if ATTRIBUTE in graph._blocks:
            raise SpecError(f"{type(graph).__name__} has the updates of a plan already; a graph can have one plan.")
        schedule_as_batch()
        setattr(graph, ATTRIBUTE, self._make_module())
        graph.config._train(True)
        build, reference = get_build(graph), weakref.ref(graph)  # no cycle: a graph must end with its last user

        def build_and_update(*args: Any, **kwargs: Any) -> Any:
            self._drop_gradients()
            try:
                outputs = build(*args, **kwargs)
                with flow.no_grad():
                    self._apply(reference())
            finally:
                self._drop_gradients()
            return outputs

        graph.build = build_and_update

    def set(self, rates: Sequence[float | None], momenta: Sequence[float | None] | None = None) -> None:
        """Choose what the graph's next calls apply; calls that still run keep what they were made with.

        Args:
            rates: One for each group of the plan, in its order, already multiplied by ``lr_scale``; finite and >= 0.
                None leaves a group's rate as it is. A group that follows a table must have None.
            momenta: One for each group, in the same way; None leaves all of them.

        Raises:
            SpecError: Another number of values, NaN, infinite or negative ones, or one for a group with a table.
            Unsupported: A new momentum for a group that is not in ``varying_momentum``, or 0 for one that is.
        """
        self._numbers.set(rates, momenta)

    def rates(self) -> Float64:
        """Read each group's rate in the next call, from the graph's buffers; waits for the graph."""
        return self._numbers.read(RATE)

    def momenta(self) -> Float64:
        """Read each group's momentum in the next call, in the same way; compiled-in momenta are the spec's."""
        return self._numbers.read(MOMENTUM)

    def applied(self, start: int, chosen: Float64) -> Float64:
        """The rates that were applied from update ``start`` on, as far as the graph has made these updates.

        Args:
            start: The first update.
            chosen: What ``set`` was given, shape (updates, groups); for groups with a table, the table's are taken.
        """
        return self._numbers.applied(start, chosen)

    def step(self) -> int:
        """How many updates the graph has made, by its own count; waits for it."""
        return self._numbers.step()

    def seek(self, step: int) -> None:
        """Go on in the tables as if the graph had made ``step`` updates."""
        self._numbers.seek(step)

    def slots(self) -> dict[str, dict[str, Array]]:
        """Copy every slot and counter, by parameter and by torch's name of the slot; waits for the graph.

        A counter, such as ``step``, the count of a parameter's updates, is float64 of shape ().
        """
        sync()
        return {
            name: {slot: tensor.numpy().copy() for slot, tensor in self._slots[name].items()} | part.counters.read(name)
            for part in self._parts
            for name in part.names
        }

    def load_slots(self, slots: Slots) -> None:
        """Go on from slots that ``slots`` returned, here or in another process, before or after the graph's first call.

        Raises:
            CheckpointError: A name, shape or dtype differs; then nothing has been changed.
        """
        _check_slots(slots, self.slots())
        for name, own in self._slots.items():
            for slot, tensor in own.items():
                write_tensor(tensor, slots[name][slot])
        for part in self._parts:
            part.counters.load(slots)

    def _make_module(self) -> Module:
        """Make a module of all buffers: a graph only knows tensors of its modules."""
        root = flow.nn.Module()
        self._numbers.register_buffers(root)
        for name, slots in self._slots.items():
            for slot, tensor in slots.items():
                _register(root, f"{slot}.{name}", tensor)
        for index, part in enumerate(self._parts):
            for number, vector in part.counters.vectors.items():
                root.register_buffer(f"{number}_{index}", vector)
        return root

    def _apply(self, graph: Graph) -> None:
        """Dispatch every update, at the end of the trace."""
        if graph.config.proto.num_gradient_accumulation_steps > 1:
            raise Unsupported(
                "set_gradient_accumulation_steps does not go with rates that change as the graph runs. Use "
                "accumulate_steps of layered_lr.run, or schedules that OneFlow compiles in."
            )
        check_no_grad_scaler(graph, "updates at rates that change as the graph runs, or that OneFlow lacks")
        lazy = make_lazy_lookup(graph)
        trained = {name: p for name, p in self._parameters.items() if p.grad is not None}
        if not trained:
            raise SpecError(
                f"{type(graph).__name__}.build computes no gradient of the plan's parameters: nothing would train. "
                "Call loss.backward() in it, and set requires_grad=True for the parameters to train."
            )
        for name in trained:
            if name not in self._slots:
                raise SpecError(f"{name!r} was frozen when the updates were made: unfreeze it before that.")
        numbers = self._numbers.trace(lazy)
        for part in self._parts:
            if names := [name for name in part.names if name in trained]:
                self._update(part, names, numbers[part.group], lazy)
        self._updated = tuple(trained)

    def _update(self, part: _UpdatePart, names: Sequence[str], numbers: RateAndMomentum, lazy: LazyLookup) -> None:
        """Dispatch the updates of one part's parameters."""
        counters = part.counters.trace(lazy)
        exact, following = part.rule.compute_scalars(numbers, counters)
        part.counters.advance(counters, following, names)
        dtype = self._parameters[names[0]].dtype
        scalars = {key: value.to(dtype) if isinstance(value, flow.Tensor) else value for key, value in exact.items()}
        for name in names:
            tensor = self._parameters[name]
            if tensor.numel():
                slots = {slot: lazy(buffer, slot) for slot, buffer in self._slots[name].items()}
                own = part.counters.pick(scalars, name, tuple(tensor.shape))
                part.rule.update(lazy(tensor, name), tensor.grad, slots, own)

    def _drop_gradients(self) -> None:
        for tensor in self._parameters.values():
            tensor.grad = None


def _find_device(parameters: Mapping[str, Tensor]) -> Device:
    """Find the device of all parameters; they must have one device and one dtype."""
    if any(tensor.is_global for tensor in parameters.values()):
        raise Unsupported(
            "a OneFlow Graph whose rates change while it runs takes no global tensors. Use local tensors, or schedules "
            "that OneFlow compiles in."
        )
    kinds = {(tensor.dtype, str(tensor.device)) for tensor in parameters.values()}
    dtype = next(iter(kinds))[0]
    if len(kinds) > 1 or dtype not in (flow.float32, flow.float64):
        raise Unsupported(
            "a OneFlow Graph whose rates change while it runs takes parameters of one dtype, float32 or float64, on "
            f"one device; these are {', '.join(sorted(f'{dtype} on {device}' for dtype, device in kinds))}."
        )
    return next(iter(parameters.values())).device


def _register(root: Module, path: str, tensor: Tensor) -> None:
    """Register a buffer under a path; each dot in it makes a nested module (OneFlow aborts on a slash in a name)."""
    *parents, leaf = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, flow.nn.Module())
        root = root._modules[part]
    root.register_buffer(leaf, tensor)


def _check_slots(slots: Slots, own: Slots) -> None:
    found = {(name, slot): np.asarray(array) for name, given in slots.items() for slot, array in given.items()}
    wanted = {(name, slot): array for name, mine in own.items() for slot, array in mine.items()}
    if odd := sorted(set(found) ^ set(wanted)):
        name, slot = odd[0]
        what = "lacks" if odd[0] in wanted else "has no place for"
        raise CheckpointError(f"optimizer state: {len(odd)} slots differ; the first: it {what} {slot!r} of {name!r}.")
    for (name, slot), array in wanted.items():
        given = found[name, slot]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise CheckpointError(
                f"optimizer state: {slot!r} of {name!r} is {given.dtype} of shape {given.shape}; must be {array.dtype} "
                f"of shape {array.shape}."
            )
