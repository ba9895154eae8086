"""Makes torch's own optimizer from a plan."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import torch

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import dtype_of, parameters_of
from layered_lr.optimizers import Adam, AdamW, Muon, Optimizer
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.group import list_kinds
from layered_lr.plans.param_groups import NO_DECAY, divide_group
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates
from layered_lr_torch import muon, paper_optimizers
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.finishing import finish_optimizer
from layered_lr_torch.lowering import ONE_WAY, OWN, choose_implementation, is_own
from layered_lr_torch.mixed_optimizer import KIND, MixedOptimizer
from layered_lr_torch.replaced_parameters import ReplacedParameters
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.slots import begin_sums
from layered_lr_torch.torch_types import Module, ParamGroup, Tensor


def build_optimizer(
    plan: Plan, model: Module, clipper: GradientClipper | None = None, step: int = 0, is_internal: bool = False
) -> torch.optim.Optimizer:
    """Make torch's optimizer of a plan, with a param group for every part of every plan group, in their order.

    A plan group has two parts if only some of its parameters decay; the name of the second param group is then the
    group's name and ``NO_DECAY``. A param group's ``lr`` is its rate at ``step``, already multiplied by ``lr_scale``,
    which torch's optimizers do not know. Parameters that a phase freezes are included; without a gradient they stay as
    they are. Those that were frozen by hand when the plan was made are left out.

    Args:
        plan: Groups and hyperparameters. With phases, the optimizer is that of the phase of ``step``.
        model: Whose parameters are trained.
        clipper: Clips the gradients before each update; None makes one, if the plan, or a phase of it, clips.
        step: The first update.
        is_internal: Whether no user ever sees the optimizer; then ``shorten_steps`` also serves few param groups.

    Raises:
        Unsupported: This release of torch lacks the optimizer, or an option of it.
    """
    here = plan.plan_at(step)
    classes = find_classes(here, has_shards(model))
    groups = build_param_groups(plan, model, step)
    arguments = {}
    for kind, (cls, settings) in classes.items():
        tensors = [tensor for group in groups if group.get(KIND, kind) == kind for tensor in group["params"]]
        chosen = _choose_implementation(settings, model, tensors)
        arguments[kind] = cls, make_arguments(cls, settings, chosen)
    optimizer: torch.optim.Optimizer
    if len(arguments) > 1:
        optimizer = MixedOptimizer(groups, arguments)
    else:
        ((cls, options),) = arguments.values()
        optimizer = cls(groups, **options)
        if chosen.get("fused"):  # a user who chose it knows; else Lightning refuses to clip under a GradScaler
            vars(optimizer)["_step_supports_amp_scaling"] = False
    begin_sums(optimizer)
    clipper = clipper or GradientClipper(plan.plan_at(step), model)
    if not is_internal:
        ReplacedParameters(optimizer, model, clipper.exchange)  # before the clipper looks at gradients
    clips = clipper.has_work or any(part.spec.clip_grad_norm or part.spec.clip_grad_value for part in plan.phase_plans)
    by_hand = find_frozen_by_hand(plan.parameters)
    omitted = [(parameter.name, tensor) for parameter, tensor in parameters_of(model) if parameter.name in by_hand]
    finish_optimizer(optimizer, clipper if clips else None, is_internal, omitted)
    return optimizer


def build_param_groups(plan: Plan, model: Module, step: int) -> list[ParamGroup]:
    """Make the param groups of ``build_optimizer``; torch fills in what they leave out.

    If the plan has several kinds of optimizers, each param group says which one is its own.

    They have the same parameters in every phase, so that a saved state fits whatever phase the optimizer is in.
    ``initial_lr`` is the group's own rate before its schedule, as torch's schedulers have it.

    Raises:
        Unsupported: This release of torch lacks the optimizer, or an option of it.
    """
    here = plan.plan_at(step)
    classes = find_classes(here, has_shards(model))
    tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    by_hand = find_frozen_by_hand(plan.parameters)
    chosen = {}
    for kind, (_, settings) in classes.items():
        mine = [tensor for name, tensor in tensors.items() if name not in by_hand and here.kinds[name] == kind]
        chosen[kind] = _choose_implementation(settings, model, mine)
    kinds = [name if (name := type(group.optimizer).__name__) in classes else None for group in here.groups]

    def make_options(column: int, optimizer: Optimizer) -> ParamGroup:
        kind = kinds[column]
        if kind is None:  # a group without parameters, whose optimizer nothing else has
            return {}
        options = make_arguments(classes[kind][0], optimizer, chosen[kind])
        return {**options, KIND: kind} if len(classes) > 1 else options

    return [
        {
            **make_options(column, part.optimizer),
            "lr": rate,
            "initial_lr": group.lr_scale * group.lr,
            "name": group.name + (NO_DECAY if index else ""),
            "params": [tensors[name] for name in part.parameters if name not in by_hand],
        }
        for column, (group, rate) in enumerate(zip(here.groups, LiveRates(here).rates(step), strict=True))
        for index, part in enumerate(divide_group(plan, group, column))
    ]


def has_shards(model: Module) -> bool:
    """Whether this process holds only a part of some parameter."""
    return any(map(is_sharded, model.parameters()))


def find_classes(plan: Plan, is_divided: bool = False) -> dict[str, tuple[Any, Optimizer]]:
    """Find the classes of a plan's optimizers, by the names of their kinds; the first one is that of ``rest``.

    Args:
        plan: Without phases.
        is_divided: Whether processes hold parts of the parameters: torch's Muon does not see whole matrices then.

    Returns:
        The kinds that some parameter has. Each with its class, and the settings of one of its groups.

    Raises:
        Unsupported: This release of torch lacks one.
    """
    found = {}
    for kind in list_kinds(plan):
        settings = [group.optimizer for group in plan.groups if type(group.optimizer) is kind]
        usual = plan.spec.optimizer if type(plan.spec.optimizer) is kind else settings[0]
        # Of our class, if one group needs it: it does what torch's does.
        own = next((one for one in settings if is_own(one)), usual)
        cls = muon.Muon if is_divided and kind is Muon else find_optimizer_class(own)
        found[kind.__name__] = cls, usual
    return found


def find_optimizer_class(settings: Optimizer) -> Any:
    """Return torch's class of an optimizer, or our own where torch has none.

    Raises:
        Unsupported: This release of torch lacks it.
    """
    kind = type(settings).__name__
    cls = getattr(paper_optimizers if isinstance(settings, OWN) else torch.optim, kind, None)
    if isinstance(settings, Muon) and (cls is None or is_own(settings)):  # torch has it since 2.9
        return muon.Muon
    if cls is None:
        raise Unsupported(
            f"optimizer {kind} is not in torch {torch.__version__}: install a newer release, or use another optimizer."
        )
    return cls


def _choose_implementation(settings: Optimizer, model: Module, tensors: Sequence[Tensor]) -> dict[str, bool]:
    """Choose the arguments ``foreach`` and ``fused``; empty if torch, or the user, has the choice."""
    parts = sum(map(is_sharded, tensors))
    is_fused = getattr(settings, "fused", None) and not isinstance(settings, Adam | AdamW)  # which torch knows of parts
    if parts and not isinstance(settings, ONE_WAY) and (parts < len(tensors) or is_fused):
        return {"foreach": False, "fused": False}  # neither takes parts beside whole tensors
    devices = {tensor.device.type for tensor in tensors}
    are_plain = all(
        type(tensor) in (torch.nn.Parameter, torch.Tensor) and tensor.is_floating_point() for tensor in tensors
    )
    has_sparse = any(
        getattr(module, "sparse", False) is True for module in model.modules()
    )  # embeddings: no fused kernel
    dtypes = [dtype_of(tensor) for tensor in tensors]
    is_chosen_by_user = settings.foreach is not None or getattr(settings, "fused", None) is not None
    chosen = (
        choose_implementation(settings, devices.pop(), dtypes)
        if len(devices) == 1 and are_plain and not has_sparse
        else None
    )
    if is_chosen_by_user or chosen is None:
        return {}
    return {"foreach": chosen == "foreach", "fused": chosen == "fused"}


def make_arguments(cls: Any, settings: Optimizer, chosen: dict[str, bool]) -> ParamGroup:
    """Make the keyword arguments of the optimizer's constructor.

    Raises:
        Unsupported: torch's class lacks an argument (in an older release) whose setting is not the default.
    """
    known = inspect.signature(cls).parameters
    values = asdict(settings) | {name: value for name, value in chosen.items() if hasattr(settings, name)}
    defaults = {field.name: field.default for field in fields(settings)}
    if values.get("max_eval", 0) is None:  # LBFGS computes it in its constructor, but takes a param group's as it is
        del values["max_eval"]
    for name in values.keys() - known.keys():
        if values[name] != defaults[name]:
            raise Unsupported(
                f"{cls.__name__}({name}=...) is not in torch {torch.__version__}: install a newer one, or leave it out."
            )
        del values[name]
    return values
