"""torch's fused CPU kernels, called directly: once for all parameters of the same rate and hyperparameters."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from operator import attrgetter, is_, itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch.optim import Optimizer

from layered_lr_torch.threads import use_one_thread
from layered_lr_torch.torch_types import Options, ParameterState, Tensor

SMALL_ELEMENTS: Final = 8192
"""One thread updates a tensor of up to so many elements: waking the others takes longer than the update."""

_NO_STATE: Final[ParameterState] = {}
_NONE: Final = type(None)
_is_cpu = attrgetter("is_cpu")

_Kernel: TypeAlias = Callable[..., object]
_Columns: TypeAlias = list[list[Any]]
"""The arguments of a kernel: a list of parameters, one of gradients, and one of each slot; some slots are empty."""


class _KernelCall(NamedTuple):
    """One of torch's fused kernels, with the hyperparameters of some param groups.

    Args:
        function: The kernel; it takes lists of tensors, then keyword arguments.
        slots: Names of the slots whose lists the kernel takes, in its order; None stands for an empty list.
        keywords: All keyword arguments except the rate.
    """

    function: _Kernel
    slots: tuple[str | None, ...]
    keywords: Options


def _choose_sgd(options: Options) -> _KernelCall:
    names = ("weight_decay", "momentum", "dampening", "nesterov", "maximize")
    keywords = {name: options[name] for name in names} | {"is_first_step": False}
    return _KernelCall(torch._fused_sgd_, ("momentum_buffer" if options["momentum"] else None,), keywords)


def _choose_adam(options: Options, decouples: bool) -> _KernelCall:
    names = ("weight_decay", "eps", "amsgrad", "maximize")
    keywords = {name: options[name] for name in names}
    keywords["beta1"], keywords["beta2"] = options["betas"]
    function = torch._fused_adamw_ if options.get("decoupled_weight_decay", decouples) else torch._fused_adam_
    largest = "max_exp_avg_sq" if options["amsgrad"] else None
    return _KernelCall(function, ("exp_avg", "exp_avg_sq", largest, "step"), keywords)


def _choose_adagrad(options: Options) -> _KernelCall:
    names = ("lr_decay", "weight_decay", "eps", "maximize")
    return _KernelCall(torch._fused_adagrad_, ("sum", "step"), {name: options[name] for name in names})


KERNELS: Final[Mapping[type[Optimizer], Callable[[Options], _KernelCall]]] = {
    torch.optim.SGD: _choose_sgd,
    torch.optim.Adam: functools.partial(_choose_adam, decouples=False),
    torch.optim.AdamW: functools.partial(_choose_adam, decouples=True),
    torch.optim.Adagrad: _choose_adagrad,
}
"""How to find the kernel of an optimizer from its hyperparameters."""


class FusedStep:
    """Makes the updates of an optimizer by calling torch's fused kernels as directly as possible.

    Each update reads everything that it depends on from the param groups. Only what follows from the hyperparameters
    is kept from one update to the next.

    Args:
        cls: The optimizer's class, a key of ``KERNELS``.
        names: The names of its hyperparameters.
    """

    def __init__(self, cls: type[Optimizer], names: tuple[str, ...]) -> None:
        self._choose_kernel = KERNELS[cls]
        self._names = tuple(name for name in names if name != "lr")
        self._get_options = itemgetter(*self._names)
        self._options: list[tuple[Any, ...]] = []
        self._calls: list[_Kernel] = []
        self._numbers: list[int] = []
        self._slots: tuple[str | None, ...] | None = None
        self._ids: list[int] = []
        self._is_small: list[bool] = []
        self._is_large: list[bool] = []

    def __call__(self, optimizer: Optimizer) -> bool:
        """Make an update.

        Returns:
            Whether it was made. If not, nothing has changed, and torch's own step has to make it.
        """
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            return False
        groups = optimizer.param_groups
        options = list(map(self._get_options, groups))
        if options != self._options:
            self._prepare(options)
        rates = [group["lr"] for group in groups]
        if self._slots is None or set(map(type, rates)) != {float}:
            return False
        members = [group["params"] for group in groups]
        tensors = [tensor for group in members for tensor in group]
        gradients = [tensor.grad for tensor in tensors]
        if _NONE in map(type, gradients):
            members = [[tensor for tensor in group if tensor.grad is not None] for group in members]
            tensors = [tensor for group in members for tensor in group]
            gradients = [tensor.grad for tensor in tensors]
        if not tensors or not all(map(_is_cpu, tensors)):
            return False
        state = optimizer.state
        if len(state) == len(tensors) and all(map(is_, state, tensors)):
            states = list(state.values())
        else:  # by id, since a look-up by a tensor calls Python's hash of a tensor
            by_id = dict(zip(map(id, state), state.values(), strict=True))
            states = [by_id.get(number, _NO_STATE) for number in map(id, tensors)]
        columns: _Columns = [tensors, gradients]
        for slot in self._slots:
            columns.append([] if slot is None else [slots.get(slot) for slots in states])
            if _NONE in map(type, columns[-1]):
                return False
        with torch.no_grad():
            if "step" in self._slots:
                torch._foreach_add_(columns[-1], _get_one(), alpha=1.0)  # a number would be made a tensor for each
            self._make_update(rates, [len(group) for group in members], columns)
        return True

    def _prepare(self, options: list[tuple[Any, ...]]) -> None:
        """Find the kernel of each group, one for all groups of equal hyperparameters.

        ``_slots`` stays None where torch has to make the update.
        """
        self._options, self._slots = options, None
        found: dict[tuple[Any, ...], _KernelCall] = {}
        for values in options:
            if not is_plain(values):
                return
            if values not in found:
                named = dict(zip(self._names, values, strict=True))
                if not named["fused"] or any(named.get(odd) for odd in ("foreach", "differentiable", "capturable")):
                    return
                found[values] = self._choose_kernel(named)
        calls = {values: functools.partial(kernel.function, **kernel.keywords) for values, kernel in found.items()}
        self._calls = [calls[values] for values in options]
        places = {values: number for number, values in enumerate(found)}
        self._numbers = [places[values] for values in options]
        slots = {kernel.slots for kernel in found.values()}
        if len(slots) == 1:
            (self._slots,) = slots

    def _make_update(self, rates: list[float], sizes: list[int], columns: _Columns) -> None:
        """Call the kernels: once for each rate and each set of hyperparameters.

        Args:
            rates: Of each param group.
            sizes: How many parameters of each group have a gradient.
            columns: Parameters, gradients and slots, group after group, as the kernels take them.
        """
        if len(set(rates)) == len(rates) == len(columns[0]) and set(sizes) == {1}:
            self._update_each(rates, columns)
            return
        keys = list(zip(self._numbers, rates, strict=True))
        ends = list(itertools.accumulate(sizes))
        found: dict[tuple[int, float], tuple[_Kernel, _Columns]] = {}
        for key, call, size, end in zip(keys, self._calls, sizes, ends, strict=True):
            mine = [column[end - size : end] for column in columns]
            if key in found:
                for old, new in zip(found[key][1], mine, strict=True):
                    old += new
            elif size:
                found[key] = call, mine
        for (_, rate), (call, lists) in found.items():
            call(*lists, lr=rate)

    def _update_each(self, rates: list[float], columns: _Columns) -> None:
        """Call the kernels once for each parameter."""
        ids = list(map(id, columns[0]))
        if ids != self._ids:
            self._ids = ids
            self._is_small = [tensor.numel() <= SMALL_ELEMENTS for tensor in columns[0]]
            self._is_large = [not is_small for is_small in self._is_small]
        lists = [zip(column, strict=True) if column else itertools.repeat(()) for column in columns]  # of one each
        rows = list(zip(self._calls, rates, zip(*lists, strict=False), strict=True))
        with use_one_thread():
            for call, rate, row in itertools.compress(rows, self._is_small):
                call(*row, lr=rate)
        for call, rate, row in itertools.compress(rows, self._is_large):
            call(*row, lr=rate)


def is_plain(values: tuple[object, ...]) -> bool:
    """Whether hyperparameters are Python's own numbers and texts, which can be compared, and no tensors."""
    return all(
        value is None or isinstance(value, bool | int | float | str) or (type(value) is tuple and is_plain(value))
        for value in values
    )


@functools.cache
def _get_one() -> Tensor:
    return torch.tensor(1.0, dtype=torch.float32, device="cpu")


@functools.cache
def is_exact(cls: type[Optimizer]) -> bool:
    """Whether direct calls do the same as the step of this release of torch: tried on a few numbers."""
    try:
        ends = [_make_trial_updates(cls, directly) for directly in (False, True)]
    except Exception:  # whatever else a kernel of that name takes or raises
        return False
    return all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def _make_trial_updates(cls: Any, directly: bool) -> list[Tensor]:
    """Weights and slots after three updates of three param groups."""
    sizes = (1, 5, SMALL_ELEMENTS + 37)
    line = functools.partial(torch.linspace, dtype=torch.float32, device="cpu")
    weights = [torch.nn.Parameter(line(-1, 2, size)) for size in sizes]
    extra = {"momentum": 0.7, "nesterov": True} if cls is torch.optim.SGD else {}
    groups = [{"params": [weight], "lr": 0.3 / size} for weight, size in zip(weights, sizes, strict=True)]
    optimizer = cls(groups, weight_decay=0.1, fused=True, **extra)
    step_directly = FusedStep(cls, tuple(optimizer.defaults))
    for at in range(3):
        for weight in weights:
            weight.grad = line(-3, at + 1, weight.numel())
        if at == 0 or not directly:
            optimizer.step()
        elif not step_directly(optimizer):
            raise RuntimeError("the fused kernels were not used")
    slots = [slot for weight in weights for slot in optimizer.state[weight].values()]
    return [weight.detach() for weight in weights] + slots
