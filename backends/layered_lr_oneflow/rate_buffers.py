"""The numbers that a running graph reads: each group's rate and momentum, in buffers that outlive its trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError, Unsupported
from layered_lr_oneflow.models import sync
from layered_lr_oneflow.rules import Numbers, assign
from layered_lr_oneflow.runtime import flow

Tables = Mapping[str, Sequence[float] | Float64]

RATE, MOMENTUM = 0, 1


class NumberBuffers:
    """Rates and momenta by group, each set by the host or followed from a table in step with the graph's own count.

    All of them are float64: what an update computes of them is rounded to the parameters' dtype once.

    Args:
        momenta: Each group's momentum (or beta1), None without one, by the group's name, in the plan's order.
        varying: Names of the groups whose momentum may change; elsewhere it is compiled in.
        rates: Each group's rate, until ``set`` is called.
        rate_tables: The rates of all updates for the groups named; the last one holds from then on.
        momentum_tables: Likewise.
        device: Of the parameters.

    Raises:
        SpecError: A table for a group that the plan does not have, an empty one, or one with NaN, infinite or negative
            numbers in it.
        Unsupported: A momentum table with a 0 in it.
    """

    def __init__(
        self,
        momenta: Mapping[str, float | None],
        varying: Collection[str],
        rates: Sequence[float],
        rate_tables: Tables,
        momentum_tables: Tables,
        device: Any,
    ) -> None:
        self._momenta = momenta
        self._varying = set(varying)
        self._names = list(momenta)
        self._device = device
        given: tuple[tuple[str, Tables], ...] = (("rate", rate_tables), ("momentum", momentum_tables))
        self._tables = [
            {group: self._tensor(self._table(what, group, table)) for group, table in tables.items()}
            for what, tables in given
        ]
        self._host = np.array([_checked("rates", rates, len(momenta)), [value or 0.0 for value in momenta.values()]])
        self._numbers = self._tensor(self._host)
        self._step = flow.zeros(1, dtype=flow.int64, device=device)

    def register(self, root: Any) -> None:
        """Make the buffers part of a module."""
        root.register_buffer("numbers", self._numbers)
        root.register_buffer("step", self._step)
        for what, tables in zip(("rate_table", "momentum_table"), self._tables, strict=True):
            for group, table in tables.items():
                root.register_buffer(f"{what}_{self._names.index(group)}", table)

    def trace(self, lazy: Callable[[Any, str], Any]) -> dict[str, Numbers]:
        """What each group's update reads, as ops of the graph that is being traced; its count goes up by one."""
        numbers, step = lazy(self._numbers, "the rates"), lazy(self._step, "the step")

        def number(row: int, index: int) -> Any:
            table = self._tables[row].get(self._names[index])
            if table is None:
                return numbers[row, index : index + 1]
            position = flow.clamp(step, max=table.shape[0] - 1)
            return flow.gather(lazy(table, "a table"), 0, position)

        traced = {
            name: Numbers(
                number(RATE, index), number(MOMENTUM, index) if name in self._varying else self._momenta[name]
            )
            for index, name in enumerate(self._names)
        }
        assign(step, step + 1)
        return traced

    def set(self, rates: Sequence[float | None], momenta: Sequence[float | None] | None) -> None:
        """See ``DynamicUpdate.set``."""
        rows = np.array([self._merged(RATE, "rates", rates), self._host[MOMENTUM]])
        if momenta is not None:
            rows[MOMENTUM] = self._merged(MOMENTUM, "momenta", momenta)
            self._check_momenta(rows[MOMENTUM])
        if not np.array_equal(rows, self._host):
            self._host = rows
            copy(self._numbers, rows)

    def read(self, row: int) -> Float64:
        """What the next call applies, as the graph will read it; waits for the graph."""
        sync()
        values = self._numbers.numpy()[row].copy()
        step = self.step()
        for group, table in self._tables[row].items():
            values[self._names.index(group)] = table.numpy()[min(step, table.shape[0] - 1)]
        return values  # type: ignore[no-any-return]

    def applied(self, start: int, chosen: Float64) -> Float64:
        """See ``DynamicUpdate.applied``."""
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
        """Go on in the tables as if the graph had made that many updates."""
        if step < 0:
            raise SpecError(f"step={step}: must be >= 0.")
        copy(self._step, np.array([step], dtype=np.int64))

    def _merged(self, row: int, what: str, values: Sequence[float | None]) -> Float64:
        """The values, and the present ones where they are None."""
        if len(values) != len(self._names):
            raise SpecError(f"{what}: {len(values)} given; the plan has {len(self._names)} groups.")
        for name, value in zip(self._names, values, strict=True):
            if value is not None and name in self._tables[row]:
                raise SpecError(f"group {name!r} follows a table: its place in {what} must be None.")
        present = self._host[row]
        return _checked(what, [old if v is None else v for v, old in zip(values, present, strict=True)], len(values))

    def _check_momenta(self, momenta: Float64) -> None:
        for (name, compiled), new in zip(self._momenta.items(), momenta, strict=True):
            if name in self._varying and name not in self._tables[MOMENTUM]:
                _check_momentum(name, new)
            elif new != (compiled or 0.0):
                raise Unsupported(
                    f"group {name!r}: momentum {compiled} is compiled into the graph, {new} is not possible. "
                    "Name the group in varying_momentum=[...]."
                )

    def _table(self, what: str, group: str, table: Sequence[float] | Float64) -> Float64:
        if group not in self._names:
            raise SpecError(f"a {what} table for {group!r}: the plan's groups are {', '.join(self._names)}.")
        values = _checked(f"the {what} table of group {group!r}", table, len(table))
        if not len(values):
            raise SpecError(f"the {what} table of group {group!r} is empty.")
        if what == "momentum":
            _check_momentum(group, float(values.min()))
        return values

    def _tensor(self, array: Float64) -> Any:
        return flow.tensor(array, dtype=flow.float64, device=self._device)


def copy(target: Any, array: NDArray[Any]) -> None:
    """Write into an eager tensor, in its own dtype, between the calls of a graph before and after; waits for it.

    The values are right without the wait too. With it, OneFlow 0.9 crashed less on a machine with six times as many
    busy threads as cores (two graphs, 2,400 writes: 0 of 48 runs before their end, 3 of 24 without; see
    ``runtime.schedule_as_batch``).
    """
    target.copy_(flow.tensor(array, dtype=target.dtype, device=target.device))
    sync()


def _checked(what: str, values: Sequence[float] | Float64, count: int) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise SpecError(f"{what}: shape {array.shape}; must be one number for each of {count}.")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise SpecError(f"{what}: {array[~(np.isfinite(array) & (array >= 0))][0]} in it; must be finite and >= 0.")
    return array


def _check_momentum(group: str, momentum: float) -> None:
    if momentum == 0:
        raise Unsupported(
            f"group {group!r}: a momentum that changes must stay above 0 in a OneFlow Graph: at 0, torch leaves its "
            "buffer alone, and goes on with the old one later."
        )
