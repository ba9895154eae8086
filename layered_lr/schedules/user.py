"""Schedules that the user defines: functions of the step, and tables of numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Annotated, Any, TypeAlias, cast

import numpy as np
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Array, Float64
from layered_lr.errors import ScheduleEnded, SpecError
from layered_lr.files import as_path, read_plain
from layered_lr.schedules.arithmetic import Value, largest
from layered_lr.schedules.base import FactorSchedule, Schedule
from layered_lr.schedules.recurrences import GrowingTable
from layered_lr.schedules.reference import UserFunction, evaluate
from layered_lr.spelling import did_you_mean
from layered_lr.validation import Flag, value_class


@value_class
class LambdaLR(FactorSchedule):
    """``lr * lr_lambda(step)``: torch's ``LambdaLR``.

    In a ``ChainedScheduler`` it sets the rate from the group's own ``lr``, whatever it was, as in torch.

    Args:
        lr_lambda: Takes the step (an int; with ``every_step`` a float) and returns a factor >= 0; or its import path
            ``"package.module:name"``. It is one function, not a list: give each group a schedule of its own instead.

    Example:
        >>> import layered_lr as ll
        >>> ll.LambdaLR(lambda step: 0.5**step)([0, 1, 2], lr=0.8)
        array([0.8, 0.4, 0.2])
    """

    lr_lambda: UserFunction

    @property
    def _multiplies(self) -> bool:
        return False

    def _factor(self, step: Value) -> Value:
        return evaluate(f"LambdaLR(lr_lambda={self.lr_lambda!r})", self.lr_lambda, step)


@value_class
class MultiplicativeLR(FactorSchedule):
    """``lr * lr_lambda(1) * ... * lr_lambda(step)``: torch's ``MultiplicativeLR``.

    Each factor is computed once and kept; between whole steps the rate stays. In a ``ChainedScheduler`` it multiplies
    the previous rate.

    Args:
        lr_lambda: Takes a step >= 1 (an int) and returns the factor >= 0 between the rate of the step before and the
            rate of this step; or its import path ``"package.module:name"``.

    Example:
        >>> import layered_lr as ll
        >>> ll.MultiplicativeLR(lambda step: 0.5)([0, 1, 2], lr=0.8)
        array([0.8, 0.4, 0.2])
    """

    lr_lambda: UserFunction

    def _factor(self, step: Value) -> Value:
        factors = self._known.extend_to(self._last_step(step) + 1, self._more)[0]
        return factors.item(int(step)) if type(step) is float else factors[step.astype(np.int64)]

    def _ratio_past_zero(self, step: Float64) -> Float64:
        return self._evaluate(step)

    @cached_property
    def _known(self) -> GrowingTable:
        return GrowingTable(np.ones((1, 1)))

    def _evaluate(self, step: Float64) -> Float64:
        factors: Float64 = evaluate(f"MultiplicativeLR(lr_lambda={self.lr_lambda!r})", self.lr_lambda, step)
        return factors

    def _more(self, start: int, stop: int) -> Float64:
        factors = self._evaluate(np.arange(start, stop, dtype=np.float64))
        factors[0] *= self._known.values.item(0, start - 1)
        with np.errstate(all="ignore"):
            return np.multiply.accumulate(factors)[None]


@value_class
class Function(Schedule):
    """``function(step)``: a rate, or with ``factor=True`` a factor of the group's ``lr``.

    In a ``ChainedScheduler`` it sets the rate; with ``factor=True`` it multiplies the previous rate, in which it
    differs from ``LambdaLR``.

    Args:
        function: Takes the step (an int; with ``every_step`` a float) and returns a number >= 0; or its import path
            ``"package.module:name"``.
        factor: Whether the number is a factor of the group's ``lr``. If not, it is the rate, before ``lr_scale``.

    Example:
        >>> import layered_lr as ll
        >>> ll.Function(lambda step: 0.1 if step < 2 else 0.01)([0, 1, 2], lr=0.8)
        array([0.1 , 0.1 , 0.01])
        >>> ll.Function(lambda step: 0.5, factor=True)([0, 1, 2], lr=0.8)
        array([0.4, 0.4, 0.4])
    """

    function: UserFunction
    factor: Flag = False

    @property
    def _multiplies(self) -> bool:
        return self.factor

    def _rate(self, step: Value, lr: Value) -> Value:
        value = evaluate(f"Function({self.function!r})", self.function, step)
        return lr * value if self.factor else value


def _read_numbers(value: Any) -> tuple[float, ...]:  # Any: whatever list() may accept
    if isinstance(value, (str, PathLike)):
        return _read_csv(value, None)
    if isinstance(value, tuple) and value and all(type(one) is float and 0.0 <= one < math.inf for one in value):
        return value
    try:
        listed = value.tolist() if hasattr(value, "tolist") else list(value)
        numbers = tuple(float(one) for one in listed if not isinstance(one, (str, bytes, bool)))
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("numbers", "Input should be a list of numbers, or the path of a CSV file") from None
    if len(numbers) != len(listed) or not numbers:
        raise PydanticCustomError("numbers", "Input should be a list of at least one number, and numbers only")
    for place, number in enumerate(numbers):
        if not 0.0 <= number < math.inf:
            raise SpecError(f"Table: value {place} is {number!r}: each value must be a finite number >= 0.")
    return numbers


# The user gives numbers or the path of a CSV file; the schedule keeps a tuple.
Numbers: TypeAlias = Annotated[Sequence[float] | Array | str | PathLike[str], PlainValidator(_read_numbers)]


@value_class
class Table(Schedule):
    """``values[step]``: a rate for each step (or epoch), or with ``factor=True`` a factor of the group's ``lr``.

    Between whole steps the value stays. There is no rate after the last value: a run that is longer is an error. In a
    ``ChainedScheduler`` rates set the rate, and factors multiply the previous rate.

    Args:
        values: Numbers >= 0: a list, an array (n,), or the path of a CSV file with one column, which is read when the
            schedule is made. ``Table.from_csv`` reads one of several columns.
        factor: Whether the numbers are factors of the group's ``lr``. If not, they are the rates, before ``lr_scale``.

    Example:
        >>> import layered_lr as ll
        >>> ll.Table([0.1, 0.2, 0.05])([0, 1, 2], lr=0.8)
        array([0.1 , 0.2 , 0.05])
    """

    values: Numbers
    factor: Flag = False

    @classmethod
    def from_csv(cls, path: str | PathLike[str], column: str | None = None, **settings: Any) -> Table:
        """Make a table from one column of a CSV file.

        Args:
            path: The file; its first row may be a header.
            column: Name of the column in the header; needed if there are several columns.
            settings: ``factor``, ``unit``.

        Raises:
            SpecError: The file or the column is missing, or a number is missing or not allowed; names the line.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = Path(folder, "rates.csv")
            ...     np.savetxt(path, [0.1, 0.05], header="rate", comments="")
            ...     ll.Table.from_csv(path, "rate")([0, 1], lr=1.0)
            array([0.1 , 0.05])
        """
        return cls(_read_csv(path, column), **settings)

    def __repr__(self) -> str:
        shown = ", ".join(f"{value:g}" for value in self._numbers[:4])
        more = f", ... {len(self._numbers)} values" if len(self._numbers) > 4 else ""
        return f"Table([{shown}{more}], factor={self.factor})"

    @cached_property
    def _array(self) -> Float64:
        return np.array(self._numbers)

    @property
    def _numbers(self) -> tuple[float, ...]:
        return cast(tuple[float, ...], self.values)  # the validator made a tuple of it

    @property
    def _multiplies(self) -> bool:
        return self.factor

    def _rate(self, step: Value, lr: Value) -> Value:
        count = len(self._numbers)
        if np.size(step) and int(largest(step)) >= count:
            raise ScheduleEnded(
                f"Table has {count} values, for {self.unit}s 0 to {count - 1}, and was asked for "
                f"{self.unit} {int(largest(step))}: give a value for every {self.unit} of the run."
            )
        value = self._numbers[int(step)] if type(step) is float else self._array[step.astype(np.int64)]
        return lr * value if self.factor else value


def _read_csv(path: str | PathLike[str], column: str | None) -> tuple[float, ...]:
    try:
        text = read_plain(as_path("Table: path", path)).decode("utf-8-sig")
    except SpecError:
        raise
    except (OSError, ValueError) as error:
        raise SpecError(f"Table: CSV file {str(path)!r} cannot be read ({error}).") from None
    rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if any(map(str.strip, row))]
    header = [cell.strip() for cell in rows[0][1]] if rows and not _is_number(rows[0][1][0]) else []
    if column is not None and column not in header:
        raise SpecError(
            f"Table: {str(path)!r} has no column {column!r}.{did_you_mean(column, header)} It has: {header}."
        )
    if column is None and rows and len(rows[0][1]) > 1:
        raise SpecError(
            f"Table: {str(path)!r} has {len(rows[0][1])} columns: name one with Table.from_csv(path, column)."
        )
    place = header.index(column) if column is not None else 0
    body = rows[1:] if header else rows
    for number, row in body:
        if len(row) <= place or not _is_number(row[place]) or not 0.0 <= float(row[place]) < math.inf:
            cell = row[place] if len(row) > place else ""
            raise SpecError(f"Table: {str(path)!r}, line {number}: {cell!r} is not a finite number >= 0.")
    if not body:
        raise SpecError(f"Table: {str(path)!r} holds no numbers: it needs one for each step or epoch.")
    return tuple(float(row[place]) for _, row in body)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
