"""``find_lr``: the loss at rising rates, with every group's ratio kept, and the rates that it suggests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.backend.base import Backend
from layered_lr.backend.loading import backend_of
from layered_lr.before.curve import LossWatch
from layered_lr.before.kept_model import model_kept
from layered_lr.before.ramp import Ramp, make_ramp
from layered_lr.before.rate_search import RateSearch
from layered_lr.before.settings import SearchSettings, check_settings
from layered_lr.data import Dataset
from layered_lr.errors import SpecError, TrainingDiverged, Unsupported
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.models.weight_files import read_weights
from layered_lr.optimizers import LBFGS
from layered_lr.plans.resolve import resolve
from layered_lr.printed import shown
from layered_lr.registry import check_name
from layered_lr.spec.spec import Spec
from layered_lr.training.callback import Callback
from layered_lr.training.checks import check_trainable
from layered_lr.training.events import UpdateEvent
from layered_lr.training.many_processes import check_single_process
from layered_lr.training.options import KEPT_OF_A_RUN, RunOptions
from layered_lr.training.prepare import Prepared, prepare
from layered_lr.training.recipe import default_spec
from layered_lr.training.train import all_versions, open_loop

OWN_LOOP = "own loop"
"""The name of the backend where the model and the batches are the user's own."""


def find_lr(
    spec: Spec | None = None,
    model: str | Callable[[], Any] | Module = "mobilenet_v2",
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    group: str | None = None,
    phase: int = 1,
    seeds: int | Sequence[int] = 1,
    smoothing: float = 0.98,
    stop_factor: float = 4.0,
    batches: Iterable[Any] | None = None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    batch_loss: Callable[[Module, Any], Any] | None = None,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    **options: Any,
) -> RateSearch:
    """Find a rate by the range test: train at rising rates, and look at where the loss falls (arXiv:1506.01186).

    Update ``i`` of ``n`` has the rate ``start * (end / start) ** (i / (n - 1))`` in the place of the spec's ``lr``, and
    every group's rate rises with it: the ratios between the groups stay. Schedules stand still. The sweep stops where
    the smoothed loss is more than ``stop_factor`` times its lowest one, or is not finite. A ``oneflow-graph`` is
    compiled once for a whole sweep.

    It trains what ``ll.run`` would, with the same weights and batches, and leaves a model of yours as it was, bitwise.
    Or it trains in a loop like your own, on torch: with ``model=`` a ``torch.nn.Module`` and ``batches=``. Then
    weights, buffers, gradients, the random generators of torch, NumPy and Python and those of a ``DataLoader`` are
    afterwards as they were. It makes an optimizer of its own, so that yours is not touched.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``.
        model: As ``run`` takes it; or with ``batches``, a ``torch.nn.Module``.
        start: The first rate, > 0.
        end: The last rate, more than ``start``.
        steps: How many updates, each with a rate of its own, at least 10.
        group: The name of a group: the rate of this group alone is searched for, and the others keep theirs. None
            searches for the spec's ``lr``.
        phase: The phase of the spec, from 1, whose optimizer, rates and frozen groups hold; the weights are those of
            the start. A suggested spec changes the phases with the same optimizer alone.
        seeds: How many sweeps with a seed each, from the run's ``seed`` on; or a list of seeds. The curve is their
            mean, and they show how far they are apart.
        smoothing: How much of the running mean of losses stays at each update, from 0 to below 1.
        stop_factor: More than 1; infinity never stops a sweep before a loss is not finite.
        batches: Of a loop of your own: something that can be gone through again and again, such as a list or a
            ``DataLoader``. It begins anew where it ends.
        loss_fn: With ``batches``: each of them is (inputs, targets), and the loss is ``loss_fn(model(inputs),
            targets)``; None is the cross-entropy.
        batch_loss: With ``batches``, instead of ``loss_fn``: ``batch_loss(model, batch)`` returns the loss, a tensor
            with one number.
        total_steps: With ``batches``: updates of the run, where a schedule needs it.
        steps_per_epoch: With ``batches``: updates of an epoch, where a schedule counts epochs.
        options: Options of ``run``, by name: ``backend``, ``data``, ``batch_size``, ``seed``, ...; none of those that
            write files, call callbacks or go on after a divergence. ``early_stop`` does not end a sweep.

    Returns:
        The curve, and the suggestions, each with a spec that is ready to run. Print it to read it.

    Raises:
        SpecError: The spec or an argument cannot be right.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The backend does not work on this machine.
        Unsupported: The backend cannot apply the plan exactly, or ``batches`` with a model of OneFlow.
        TrainingDiverged: The very first loss is not finite.

    Example:
        In a loop of your own, then the same spec at the rate that was found:

        >>> import torch
        >>> import layered_lr as ll
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> inputs = torch.randn(64, 8)
        >>> batches = [(inputs, (inputs.sum(1) > 0).long())]
        >>> spec = ll.Spec(ll.SGD(0.1), [ll.Group("0", lr_scale=0.1)])
        >>> search = ll.find_lr(spec, net, batches=batches, start=1e-4, end=100)
        >>> search.scales
        {'0': 0.1, 'rest': 1.0}
        >>> optimizer, scheduler = ll.compile(search.suggestion.spec, net)
    """
    spec = default_spec() if spec is None else spec
    if batches is not None or loss_fn is not None or batch_loss is not None:
        settings = check_settings(start, end, steps, group, phase, seeds, smoothing, stop_factor, 0)
        check_options("find_lr with batches", options, ())
        loop = _OwnLoop(model, batches, loss_fn, batch_loss, total_steps, steps_per_epoch)
        return _search_own_loop(spec, loop, settings)
    if total_steps is not None or steps_per_epoch is not None:
        raise SpecError("find_lr: total_steps and steps_per_epoch are for a loop of your own: give batches=... too.")
    if framework_of(model):
        raise SpecError(
            f"model: got a {type(model).__name__} object; give batches=... too, to train it in a loop of your own, or "
            "what builds it, such as model=lambda: make_model()."
        )
    run_options = options_before("find_lr", model, options)
    settings = check_settings(start, end, steps, group, phase, seeds, smoothing, stop_factor, run_options.seed)
    return _search_run(spec, run_options, settings)


def options_before(caller: str, model: Any, given: Mapping[str, Any]) -> RunOptions:
    """The options of a run that is tried before it, checked.

    Args:
        caller: The function's name, for messages.
        model: Of the run.
        given: Its other options.

    Raises:
        SpecError: An option that has no meaning before a run, or a value that cannot be.
    """
    check_options(caller, given, [name for name in given if name not in KEPT_OF_A_RUN])
    made = RunOptions(**{"model": model, **given})
    check_name(made.backend)
    check_single_process()
    return made


def check_options(caller: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse options of a run that have no meaning here."""
    for name, value in given.items():
        if name not in known:
            raise SpecError(
                f"{caller}: {name}={shown(value)} is for ll.run, and has no meaning here: nothing is kept of what is "
                f"trained. Leave {name} out."
            )


class _Sweep(NamedTuple):
    """What one sweep measured.

    Args:
        losses: Those that are finite, shape (m,).
        rates: Each group's at each of these updates, shape (m, groups).
        stopped: Why it ended early; empty where it did not.
    """

    losses: Float64
    rates: Float64
    stopped: str


class _Watch(Callback):
    """Ends a sweep where its loss has risen too far.

    Args:
        settings: Of the search.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self.curve = LossWatch(settings.smoothing, settings.stop_factor)

    def on_update(self, event: UpdateEvent) -> None:
        """Look at the loss of each update."""
        self.curve.add(float(event.loss))
        if self.curve.is_over:
            event.run.stop_unsaid()


def _search_run(spec: Spec, options: RunOptions, settings: SearchSettings) -> RateSearch:
    ramp: Ramp | None = None
    backend: Backend | None = None
    dataset: Dataset | None = None
    sweeps = []
    seeds = settings.seeds or (options.seed,)
    shared, chosen = options, options.initial_weights
    if chosen is not None and chosen.source is not None:
        shared = replace(options, initial_weights=replace(chosen, source=read_weights(chosen.source)))
    for seed in seeds:
        own = replace(shared, seed=seed, early_stop=None)
        ready = prepare(spec, own, backend=backend, dataset=dataset)
        backend, dataset = ready.backend, ready.dataset
        ramp = make_ramp(ready.plan, ready.model, settings.rates, settings.group, settings.phase)
        check_trainable(ramp.plan, ready.model)
        found = ready._replace(
            plan=ramp.plan,
            lowering=ramp.plan.lowering(backend.name),
            extras=ready.extras._replace(ema_decay=None, grad_norms=False),
        )
        kept = contextlib.nullcontext() if isinstance(options.model, str) else model_kept(backend, ready.model)
        with kept:
            sweeps.append(_sweep_run(found, own, settings))
    assert ramp is not None  # there is a seed
    written = {name: value for name, value in options.to_dict().items() if name not in KEPT_OF_A_RUN}
    searched = ready.plan.spec if settings.group is not None else spec  # with a group for each layer
    return _joined(searched, options.backend, ramp, settings, seeds, sweeps, written, all_versions(options.backend))


def _sweep_run(ready: Prepared, options: RunOptions, settings: SearchSettings) -> _Sweep:
    watch, stopped = _Watch(settings), ""
    loop = open_loop(ready, options, [watch], evaluates=False)
    try:
        loop.run()
    except TrainingDiverged:
        if not len(loop.history.losses):
            raise
        stopped = f"The loss is not finite at {_rate(settings, len(loop.history.losses))}."
    loop.measured.collect()
    if watch.curve.is_over:
        stopped = _why_stopped(settings, watch.curve.count)
    return _Sweep(loop.history.losses.numbers(), loop.history.rates.numbers(), stopped)


def _rate(settings: SearchSettings, place: int) -> str:
    return f"{settings.rates[min(place, len(settings.rates) - 1)]:.3g}"


def _why_stopped(settings: SearchSettings, count: int) -> str:
    return (
        f"The sweep stopped at {_rate(settings, count - 1)}, where the smoothed loss is more than "
        f"{settings.stop_factor:g} times its lowest."
    )


class _OwnLoop(NamedTuple):
    """What a loop of the user's own is made of, as ``find_lr`` takes it."""

    model: Any
    batches: Iterable[Any] | None
    loss_fn: Callable[[Any, Any], Any] | None
    batch_loss: Callable[[Module, Any], Any] | None
    total_steps: int | None
    steps_per_epoch: int | None


def _search_own_loop(spec: Spec, loop: _OwnLoop, settings: SearchSettings) -> RateSearch:
    batches = _check_own_loop(loop)
    backend = backend_of(loop.model)
    if isinstance(getattr(spec, "optimizer", None), LBFGS):
        raise Unsupported(
            "find_lr with batches: LBFGS computes the loss several times an update. Use ll.find_lr(model=..., "
            "backend=...) without batches."
        )
    plan = resolve(spec, loop.model, loop.total_steps, loop.steps_per_epoch)
    ramp = make_ramp(plan, loop.model, settings.rates, settings.group, settings.phase)
    check_trainable(ramp.plan, loop.model)
    seeds: tuple[int | None, ...] = settings.seeds or (None,)
    sweeps = [_sweep_own_loop(backend, ramp, loop, batches, settings, seed) for seed in seeds]
    searched = plan.spec if settings.group is not None else spec  # with a group for each layer
    return _joined(
        searched, OWN_LOOP, ramp, settings, tuple(seed or 0 for seed in seeds), sweeps, {}, all_versions(backend.name)
    )


def _check_own_loop(loop: _OwnLoop) -> Iterable[Any]:
    """The batches, which can be gone through again.

    Raises:
        SpecError: They cannot, or what is given does not go together.
    """
    if loop.batches is None:
        raise SpecError("find_lr: loss_fn and batch_loss are for a loop of your own: give batches=... too.")
    if loop.loss_fn is not None and loop.batch_loss is not None:
        raise SpecError("find_lr: give loss_fn or batch_loss, not both of them.")
    for name, function in (("loss_fn", loop.loss_fn), ("batch_loss", loop.batch_loss)):
        if function is not None and not callable(function):
            raise SpecError(f"find_lr({name}={shown(function)}): must be a function.")
    given = loop.batches
    if isinstance(given, str | bytes | Mapping) or not hasattr(type(given), "__iter__"):
        raise SpecError(f"find_lr(batches={shown(given)}): must be a list of batches, or a DataLoader.")
    if hasattr(type(given), "__next__"):
        raise SpecError(
            f"find_lr(batches={shown(given)}): an iterator can be gone through only once, and would be used up. Give "
            "a list of batches, or the DataLoader itself."
        )
    return given


def _sweep_own_loop(
    backend: Backend,
    ramp: Ramp,
    loop: _OwnLoop,
    batches: Iterable[Any],
    settings: SearchSettings,
    seed: int | None,
) -> _Sweep:
    watch = LossWatch(settings.smoothing, settings.stop_factor)
    losses: list[float] = []
    rates: list[list[float]] = []
    stopped = ""
    updates = backend.try_updates(ramp.plan, loop.model, batches, loop.loss_fn, loop.batch_loss, seed)
    with contextlib.closing(updates):  # which gives everything back
        for loss, applied in updates:
            if not np.isfinite(loss):
                if not losses:
                    raise TrainingDiverged(f"the first loss is {loss}, before any update: look at the model and data.")
                stopped = f"The loss is not finite at {_rate(settings, len(losses))}."
                break
            losses.append(loss)
            rates.append(applied)
            watch.add(loss)
            if watch.is_over:
                stopped = _why_stopped(settings, watch.count)
                break
    return _Sweep(np.array(losses), np.array(rates), stopped)


def _joined(
    spec: Spec,
    backend: str,
    ramp: Ramp,
    settings: SearchSettings,
    seeds: tuple[int, ...],
    sweeps: Sequence[_Sweep],
    options: Mapping[str, Any],
    versions: Mapping[str, str],
) -> RateSearch:
    longest = max(sweeps, key=lambda sweep: len(sweep.losses))
    count = len(longest.losses)
    losses = np.full((len(sweeps), count), np.nan)
    for row, sweep in zip(losses, sweeps, strict=True):
        row[: len(sweep.losses)] = sweep.losses
    names = [group.name for group in ramp.plan.groups]
    return RateSearch(
        backend=backend,
        spec=spec,
        group=settings.group,
        base=ramp.base,
        scales=ramp.scales,
        fixed=ramp.fixed,
        lr=settings.rates[:count].copy(),
        losses=losses,
        rates=dict(zip(names, longest.rates.T, strict=True)),
        seeds=seeds,
        smoothing=settings.smoothing,
        stop_factor=settings.stop_factor,
        stopped=tuple(sweep.stopped for sweep in sweeps),
        options=options,
        versions=versions,
        phase=settings.phase,
    )
