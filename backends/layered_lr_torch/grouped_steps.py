"""Many param groups updated by few calls, or by short ones; the result is bitwise that of torch's own ``step``.

torch goes through an optimizer's param groups one by one, some 11 microseconds each before any number is touched.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from operator import attrgetter, is_, itemgetter
from types import MethodType
from typing import Any, Final, NamedTuple

import torch
from torch.optim import Optimizer

from layered_lr_torch.late_steps import late_parameters
from layered_lr_torch.threads import one_thread

MANY: Final = 4
"""From so many param groups on. Below it torch's own step is left alone: there is little to gain."""

SMALL_ELEMENTS: Final = 8192
"""Up to so many elements a tensor is updated by one thread: waking the others takes longer than the update."""

_SHORT: Final = "_layered_lr_short"
_NOTHING: Final[Mapping[str, Any]] = {}
_NONE: Final = type(None)
_is_cpu = attrgetter("is_cpu")
_UNKNOWN: Final = ("somebody may listen",)  # where torch has other names for what is private to it


_Call = Callable[..., Any]


class _Kernel(NamedTuple):
    """One of torch's fused kernels, ready for param groups of the same hyperparameters.

    Args:
        function: Takes lists of tensors, then keyword arguments.
        slots: What the optimizer keeps of a parameter, in the order of the function's lists; None is an empty list.
        keywords: All but the rate.
    """

    function: Callable[..., Any]
    slots: tuple[str | None, ...]
    keywords: Mapping[str, Any]


def _sgd(options: Mapping[str, Any]) -> _Kernel:
    names = ("weight_decay", "momentum", "dampening", "nesterov", "maximize")
    keywords = {name: options[name] for name in names} | {"is_first_step": False}
    return _Kernel(torch._fused_sgd_, ("momentum_buffer" if options["momentum"] else None,), keywords)


def _adam(options: Mapping[str, Any], decouples: bool) -> _Kernel:
    names = ("weight_decay", "eps", "amsgrad", "maximize")
    keywords = {name: options[name] for name in names}
    keywords["beta1"], keywords["beta2"] = options["betas"]
    function = torch._fused_adamw_ if options.get("decoupled_weight_decay", decouples) else torch._fused_adam_
    largest = "max_exp_avg_sq" if options["amsgrad"] else None
    return _Kernel(function, ("exp_avg", "exp_avg_sq", largest, "step"), keywords)


def _adagrad(options: Mapping[str, Any]) -> _Kernel:
    names = ("lr_decay", "weight_decay", "eps", "maximize")
    return _Kernel(torch._fused_adagrad_, ("sum", "step"), {name: options[name] for name in names})


_KERNELS: Final[Mapping[type[Optimizer], Callable[[Mapping[str, Any]], _Kernel]]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: functools.partial(_adam, decouples=False),
    torch.optim.AdamW: functools.partial(_adam, decouples=True),
    torch.optim.Adagrad: _adagrad,
}


def shorten_steps(optimizer: Optimizer, also_few: bool = False) -> bool:
    """Have ``optimizer.step`` do the same by less, where there are many param groups.

    The optimizer stays what it is: its class, its param groups, its state, its hooks, which are called as ever. What
    a step does is decided anew at each one from what the param groups then hold. Copying or pickling an optimizer
    leaves this behind; a copy steps as torch has it.

    - SGD, Adam, AdamW and Adagrad, fused, on a CPU: torch's kernels are called once for each rate and set of
      hyperparameters, without what torch does in between. They are private to torch; where they are not what they
      were when this was written, they are not used.
    - Any other: torch's own step is shown param groups of the same rate and hyperparameters as one.

    A closure, a ``GradScaler`` that scales, first updates, rates that are tensors: torch's own step.

    Args:
        optimizer: As it was made.
        also_few: With few param groups too, where its kernels can be called directly.

    Returns:
        Whether it does; then it also does what ``allow_late_parameters`` is for.
    """
    cls: Any = type(optimizer)
    own = getattr(cls.step, "__wrapped__", None)  # without the hooks, which are called around all of it
    hooked = getattr(Optimizer, "profile_hook_step", None)
    are_few = len(optimizer.param_groups) < MANY
    if (are_few and not also_few) or own is None or hooked is None:
        return False
    on_cpu = all(tensor.is_cpu for group in optimizer.param_groups for tensor in group["params"])
    fused = cls in _KERNELS and any(group["fused"] for group in optimizer.param_groups)
    short = _Fused(cls, tuple(optimizer.defaults)) if fused and on_cpu and _is_exact(cls) else None
    if are_few and short is None:
        return False

    def step(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None and not torch.compiler.is_compiling():
            if short is not None and short(self):
                return None
            with late_parameters(self), _Merged(self):
                return own(self)
        with late_parameters(self):
            return own(self, closure)

    optimizer.step = MethodType(hooked(step), optimizer)  # type: ignore[method-assign]
    vars(optimizer)[_SHORT] = short
    return True


class Unheard:
    """Updates without what ``optimizer.step`` does for those who listen, while nobody does.

    Hooks and a profiler's entry take a third of the time of an update of a few small tensors.

    Args:
        optimizer: As ``shorten_steps`` and a scheduler have left it.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._step = vars(optimizer).get("step")
        self._short: _Fused | None = vars(optimizer).get(_SHORT)
        self._hooks = [
            getattr(holder, name, _UNKNOWN)
            for holder, name in (
                (optimizer, "_optimizer_step_pre_hooks"),
                (optimizer, "_optimizer_step_post_hooks"),
                (sys.modules[Optimizer.__module__], "_global_optimizer_pre_hooks"),
                (sys.modules[Optimizer.__module__], "_global_optimizer_post_hooks"),
            )
        ]

    def step(self, optimizer: Any) -> None:
        """Make an update of this optimizer, or of whatever has taken its place."""
        if (
            self._short is not None
            and optimizer is self._optimizer
            and vars(optimizer).get("step") is self._step
            and not any(self._hooks)
            and not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
            and self._short(optimizer)
        ):
            optimizer._opt_called = True  # what torch's schedulers look for
            return
        optimizer.step()


class _Fused:
    """Updates by torch's fused kernels, called as directly as it goes.

    Everything that the update depends on is read at each one: only what follows from the hyperparameters is kept.

    Args:
        cls: The optimizer's class.
        names: Of its hyperparameters.
    """

    def __init__(self, cls: type[Optimizer], names: tuple[str, ...]) -> None:
        self._kernel_of = _KERNELS[cls]
        self._names = tuple(name for name in names if name != "lr")
        self._options_of = itemgetter(*self._names)
        self._options: list[Any] = []
        self._calls: list[_Call] = []
        self._numbers: list[int] = []
        self._slots: tuple[str | None, ...] | None = None
        self._which: list[int] = []
        self._small: list[bool] = []
        self._large: list[bool] = []

    def __call__(self, optimizer: Any) -> bool:
        """Make an update; False where torch is to make it, and then nothing has been changed."""
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            return False
        groups = optimizer.param_groups
        options = list(map(self._options_of, groups))
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
        if len(state) == len(tensors) and all(map(is_, state, tensors)):  # a look-up calls Python's hash of a tensor
            kept = list(state.values())
        else:
            kept = [state.get(tensor, _NOTHING) for tensor in tensors]
        columns = [tensors, gradients]
        for slot in self._slots:
            columns.append([] if slot is None else [slots.get(slot) for slots in kept])
            if _NONE in map(type, columns[-1]):
                return False
        with torch.no_grad():
            if "step" in self._slots:
                torch._foreach_add_(columns[-1], _one(), alpha=1.0)  # a number would be made a tensor for each
            self._make(rates, [len(group) for group in members], columns)
        return True

    def _prepare(self, options: list[Any]) -> None:
        """Find the kernel of each group, one for all of the same hyperparameters; no slots where torch is to do it."""
        self._options, self._slots = options, None
        found: dict[Any, _Kernel] = {}
        for values in options:
            if not _is_plain(values):
                return
            if values not in found:
                named = dict(zip(self._names, values, strict=True))
                if not named["fused"] or any(named.get(odd) for odd in ("foreach", "differentiable", "capturable")):
                    return
                found[values] = self._kernel_of(named)
        calls = {values: functools.partial(kernel.function, **kernel.keywords) for values, kernel in found.items()}
        self._calls = [calls[values] for values in options]
        places = {values: number for number, values in enumerate(found)}
        self._numbers = [places[values] for values in options]
        slots = {kernel.slots for kernel in found.values()}
        if len(slots) == 1:
            (self._slots,) = slots

    def _make(self, rates: list[float], sizes: list[int], columns: list[list[Any]]) -> None:
        """Call the kernels: once for each rate and each set of hyperparameters.

        Args:
            rates: Of each param group.
            sizes: How many parameters of each have a gradient.
            columns: Parameters, gradients and slots, group after group, as the kernels take them.
        """
        if len(set(rates)) == len(rates) == len(columns[0]) and set(sizes) == {1}:
            self._make_each(rates, columns)
            return
        keys = list(zip(self._numbers, rates, strict=True))
        ends = list(itertools.accumulate(sizes))
        found: dict[tuple[int, float], tuple[_Call, list[list[Any]]]] = {}
        for key, call, size, end in zip(keys, self._calls, sizes, ends, strict=True):
            mine = [column[end - size : end] for column in columns]
            if key in found:
                for old, new in zip(found[key][1], mine, strict=True):
                    old += new
            elif size:
                found[key] = call, mine
        for (_, rate), (call, lists) in found.items():
            call(*lists, lr=rate)

    def _make_each(self, rates: list[float], columns: list[list[Any]]) -> None:
        """One call for each parameter."""
        which = list(map(id, columns[0]))
        if which != self._which:
            self._which = which
            self._small = [tensor.numel() <= SMALL_ELEMENTS for tensor in columns[0]]
            self._large = [not is_small for is_small in self._small]
        lists = [zip(column, strict=True) if column else itertools.repeat(()) for column in columns]  # of one each
        rows = list(zip(self._calls, rates, zip(*lists, strict=False), strict=True))
        with one_thread():
            for call, rate, row in itertools.compress(rows, self._small):
                call(*row, lr=rate)
        for call, rate, row in itertools.compress(rows, self._large):
            call(*row, lr=rate)


def _is_plain(values: tuple[Any, ...]) -> bool:
    return all(
        value is None or isinstance(value, bool | int | float) or (type(value) is tuple and _is_plain(value))
        for value in values
    )


@functools.cache
def _one() -> torch.Tensor:
    return torch.tensor(1.0, dtype=torch.float32, device="cpu")


class _Merged(AbstractContextManager[None]):
    """Param groups that agree in everything the update reads, shown to torch as one while it steps."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def __enter__(self) -> None:
        self._own = self._optimizer.param_groups
        self._optimizer.param_groups = _together(self._optimizer)

    def __exit__(self, *_: object) -> None:
        self._optimizer.param_groups = self._own


def _together(optimizer: Any) -> list[dict[str, Any]]:
    own: list[dict[str, Any]] = optimizer.param_groups
    values_of = itemgetter(*optimizer.defaults)
    found: dict[tuple[Any, frozenset[bool]], list[dict[str, Any]]] = {}
    for group in own:
        values = values_of(group)
        if not _is_plain(values):
            return own
        begun: frozenset[bool] = frozenset()
        if isinstance(optimizer, torch.optim.SGD):  # which makes a first update otherwise than those behind it
            moving = [tensor for tensor in group["params"] if tensor.grad is not None]
            kept = [optimizer.state.get(tensor, _NOTHING) for tensor in moving]
            begun = frozenset(slots.get("momentum_buffer") is not None for slots in kept)
        found.setdefault((values, begun), []).append(group)
    if len(found) == len(own):
        return own
    return [
        {**alike[0], "params": [tensor for group in alike for tensor in group["params"]]} for alike in found.values()
    ]


@functools.cache
def _is_exact(cls: Any) -> bool:
    """Whether this torch's kernels, called here, do what its own step does: tried on a few numbers."""
    try:
        ends = [_tried(cls, directly) for directly in (False, True)]
    except Exception:  # whatever else a kernel of that name takes or raises
        return False
    return all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def _tried(cls: Any, directly: bool) -> list[torch.Tensor]:
    """Weights and slots after three updates of three param groups."""
    sizes = (1, 5, SMALL_ELEMENTS + 37)
    line = functools.partial(torch.linspace, dtype=torch.float32, device="cpu")
    weights = [torch.nn.Parameter(line(-1, 2, size)) for size in sizes]
    extra = {"momentum": 0.7, "nesterov": True} if cls is torch.optim.SGD else {}
    groups = [{"params": [weight], "lr": 0.3 / size} for weight, size in zip(weights, sizes, strict=True)]
    optimizer = cls(groups, weight_decay=0.1, fused=True, **extra)
    short = _Fused(cls, tuple(optimizer.defaults))
    for at in range(3):
        for weight in weights:
            weight.grad = line(-3, at + 1, weight.numel())
        if at == 0 or not directly:
            optimizer.step()
        elif not short(optimizer):
            raise RuntimeError("the kernels were not used")
    slots = [slot for weight in weights for slot in optimizer.state[weight].values()]
    return [weight.detach() for weight in weights] + slots
