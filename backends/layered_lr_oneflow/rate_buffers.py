"""The rates and momenta that a running graph reads, in buffers that can be written between its calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError, Unsupported
from layered_lr_oneflow.eager_tensors import sync, write_tensor
from layered_lr_oneflow.oneflow_types import Device, LazyLookup, Module, Tensor
from layered_lr_oneflow.rules import RateAndMomentum, assign
from layered_lr_oneflow.runtime import flow

Tables: TypeAlias = Mapping[str, Sequence[float] | Float64]
"""For some groups, by name, the number for every update."""

RATE, MOMENTUM = 0, 1


class RateBuffers:
    """The rate and momentum of each group. The host sets a number, or it follows a table by the graph's own count.

    All of them are float64: what an update computes from them is rounded to the parameters' dtype once.

    Args:
        momenta: Each group's momentum (or beta1), by the group's name in the plan's order; None for a group without.
        varying: Names of the groups whose momentum may change; the others are compiled in.
        rates: Each group's rate, until ``set`` is called.
        rate_tables: For some groups, the rate of every update; after the table's end its last rate stays.
        momentum_tables: For some groups, the momentum of every update, in the same way.
        device: Of the parameters.

    Raises:
        SpecError: A table is for a group that the plan does not have, is empty, or holds NaN, infinite or negative
            numbers.
        Unsupported: A momentum table holds a 0.
    """

    def __init__(
        self,
        momenta: Mapping[str, float | None],
        varying: Collection[str],
        rates: Sequence[float],
        rate_tables: Tables,
        momentum_tables: Tables,
        device: Device,
    ) -> None:
        self._momenta = momenta
        self._varying = set(varying)
        self._names = list(momenta)
        self._device = device
        given: tuple[tuple[str, Tables], ...] = (("rate", rate_tables), ("momentum", momentum_tables))
        self._tables: list[dict[str, Tensor]] = [
            {group: self._make_tensor(self._check_table(what, group, table)) for group, table in tables.items()}
            for what, tables in given
        ]
        self._host = np.array(
            [_check_numbers("rates", rates, len(momenta)), [value or 0.0 for value in momenta.values()]]
        )
        self._numbers = self._make_tensor(self._host)
        self._step = flow.zeros(1, dtype=flow.int64, device=device)

    def register_buffers(self, root: Module) -> None:
        """Make the buffers part of a module."""
        root.register_buffer("numbers", self._numbers)
        root.register_buffer("step", self._step)
        for what, tables in zip(("rate_table", "momentum_table"), self._tables, strict=True):
            for group, table in tables.items():
                root.register_buffer(f"{what}_{self._names.index(group)}", table)

    def trace(self, lazy: LazyLookup) -> dict[str, RateAndMomentum]:
        """What each group's update reads, as ops of the graph that is being traced; each call counts one update."""
        numbers, step = lazy(self._numbers, "the rates"), lazy(self._step, "the step")

        def trace_number(row: int, index: int) -> Tensor:
            table = self._tables[row].get(self._names[index])
            if table is None:
                return numbers[row, index : index + 1]
            position = flow.clamp(step, max=table.shape[0] - 1)
            return flow.gather(lazy(table, "a table"), 0, position)

        traced = {
            name: RateAndMomentum(
                trace_number(RATE, index),
                trace_number(MOMENTUM, index) if name in self._varying else self._momenta[name],
            )
            for index, name in enumerate(self._names)
        }
        assign(step, step + 1)
        return traced

    def set(self, rates: Sequence[float | None], momenta: Sequence[float | None] | None) -> None:
        """Choose what the graph's next calls apply.

        Args:
            rates: One for each group; None leaves a group's rate as it is.
            momenta: One for each group, in the same way; None leaves all of them.

        Raises:
            SpecError: Another number of values, a value that is not finite and >= 0, or one for a group with a table.
            Unsupported: A new momentum for a group whose momentum is compiled in, or 0 for one that varies.
        """
        rows = np.array([self._merge(RATE, "rates", rates), self._host[MOMENTUM]])
        if momenta is not None:
            rows[MOMENTUM] = self._merge(MOMENTUM, "momenta", momenta)
            self._check_momenta(rows[MOMENTUM])
        if not np.array_equal(rows, self._host):
            self._host = rows
            write_tensor(self._numbers, rows)

    def read(self, row: int) -> Float64:
        """Read what the next call applies, as the graph will read it; waits for the graph."""
        sync()
        values: Float64 = self._numbers.numpy()[row].copy()
        step = self.step()
        for group, table in self._tables[row].items():
            values[self._names.index(group)] = table.numpy()[min(step, table.shape[0] - 1)]
        return values

    def applied(self, start: int, chosen: Float64) -> Float64:
        """The rates that were applied from update ``start`` on, as far as the graph has made these updates.

        Args:
            start: The first update.
            chosen: The rates that were set, shape (updates, groups); for groups with a table, the table's are taken.
        """
        stop = min(start + len(chosen), self.step())
        rates = chosen[: max(stop - start, 0)].copy()
        for group, table in self._tables[RATE].items():
            held = table.numpy()
            rates[:, self._names.index(group)] = held[np.minimum(np.arange(start, start + len(rates)), len(held) - 1)]
        return rates

    def step(self) -> int:
        """How many updates the graph has made; waits for it."""
        sync()
        return int(self._step.numpy()[0])

    def seek(self, step: int) -> None:
        """Go on in the tables as if the graph had made ``step`` updates.

        Raises:
            SpecError: ``step`` is negative.
        """
        if step < 0:
            raise SpecError(f"step={step}: must be >= 0.")
        write_tensor(self._step, np.array([step], dtype=np.int64))

    def _merge(self, row: int, what: str, values: Sequence[float | None]) -> Float64:
        """The values, with the present ones in the place of None."""
        if len(values) != len(self._names):
            raise SpecError(f"{what}: {len(values)} given; the plan has {len(self._names)} groups.")
        for name, value in zip(self._names, values, strict=True):
            if value is not None and name in self._tables[row]:
                raise SpecError(f"group {name!r} follows a table: its place in {what} must be None.")
        present = self._host[row]
        merged = [old if value is None else value for value, old in zip(values, present, strict=True)]
        return _check_numbers(what, merged, len(values))

    def _check_momenta(self, momenta: Float64) -> None:
        for (name, compiled), new in zip(self._momenta.items(), momenta, strict=True):
            if name in self._varying and name not in self._tables[MOMENTUM]:
                _check_momentum(name, new)
            elif new != (compiled or 0.0):
                raise Unsupported(
                    f"group {name!r}: momentum {compiled} is compiled into the graph, {new} is not possible. "
                    "Name the group in varying_momentum=[...]."
                )

    def _check_table(self, what: str, group: str, table: Sequence[float] | Float64) -> Float64:
        if group not in self._names:
            raise SpecError(f"a {what} table for {group!r}: the plan's groups are {', '.join(self._names)}.")
        values = _check_numbers(f"the {what} table of group {group!r}", table, len(table))
        if not len(values):
            raise SpecError(f"the {what} table of group {group!r} is empty: give a number for each update.")
        if what == "momentum":
            _check_momentum(group, float(values.min()))
        return values

    def _make_tensor(self, array: Float64) -> Tensor:
        return flow.tensor(array, dtype=flow.float64, device=self._device)


def _check_numbers(what: str, values: Sequence[float] | Float64, count: int) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise SpecError(f"{what}: shape {array.shape}; must be one number for each of {count}.")
    good = np.isfinite(array) & (array >= 0)
    if not good.all():
        raise SpecError(f"{what}: {array[~good][0]} in it; must be finite and >= 0.")
    return array


def _check_momentum(group: str, momentum: float) -> None:
    if momentum == 0:
        raise Unsupported(
            f"group {group!r}: a momentum that changes must stay above 0 in a OneFlow Graph (at 0, torch would keep "
            "the momentum buffer and use it again later). Use a small momentum "
            "instead of 0."
        )
