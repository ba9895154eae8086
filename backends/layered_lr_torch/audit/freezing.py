"""Frozen parameters that are listed or move, and normalisations that move under them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from layered_lr.findings import Finding
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.audit.recipe import AuditedRecipe, ListedGroup
from layered_lr_torch.torch_types import Module, Tensor

_MEMORIES = ("momentum_buffer", "exp_avg")


def find_thawed(recipe: AuditedRecipe) -> Iterator[Finding]:
    """Yield what moves, or may move, though it is frozen."""
    listed: dict[str, set[str]] = {}
    moving: dict[str, set[str]] = {}
    causes: dict[str, set[str]] = {}
    has_masks: dict[str, bool] = {}
    for group in recipe.groups:
        for tensor in group.options["params"]:
            name = recipe.names.get(id(tensor))
            if name is None or name in recipe.frozen_by_plan:
                continue
            is_frozen, masked = name in recipe.frozen, _is_masked(tensor)
            cause = _cause_of_motion(group, tensor) if is_frozen or masked else set()
            if cause:
                moving.setdefault(group.label, set()).add(name)
                causes.setdefault(group.label, set()).update(cause)
                has_masks[group.label] = has_masks.get(group.label, False) or masked
            elif is_frozen:
                listed.setdefault(group.label, set()).add(name)
    for label, names in moving.items():
        reason = " and ".join(sorted(causes[label]))
        masked = has_masks[label]
        yield Finding(
            "frozen-but-moving",
            f"{len(names)} parameter{'s' * (len(names) != 1)} "
            + ("whose gradient a hook makes 0." if masked else "with requires_grad=False that still have a gradient."),
            (label,),
            recipe.in_order(names),
            f"Each step of the optimizer still moves them, by {reason}.",
            "set requires_grad=False and grad=None, or leave them out of the optimizer."
            if masked
            else "set their grad to None (zero_grad(set_to_none=True)), or leave them out of the optimizer.",
        )
    if listed:
        yield Finding(
            "frozen-but-listed",
            f"{sum(map(len, listed.values()))} parameters with requires_grad=False: listed in the optimizer.",
            tuple(listed),
            recipe.in_order(set().union(*listed.values())),
            "They do not move now. A gradient that is left over moves them, and they look as if they trained.",
            "give the optimizer only the parameters with requires_grad=True; add a group when you unfreeze it.",
        )


def _is_masked(tensor: Tensor) -> bool:
    """Whether a hook has made the gradient 0 in all places."""
    hooks = getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None)
    return bool(hooks) and tensor.grad is not None and not tensor.grad.is_sparse and not bool(tensor.grad.any())


def _cause_of_motion(group: ListedGroup, tensor: Tensor) -> set[str]:
    """What moves a parameter at the next step; torch's optimizers take every parameter whose ``grad`` is not None."""
    if tensor.grad is None or not group.rate:
        return set()
    state = group.optimizer.state.get(tensor, {})
    found = set()
    if group.options.get("weight_decay"):
        found.add("weight decay")
    if any(isinstance(state.get(name), torch.Tensor) and bool(state[name].any()) for name in _MEMORIES):
        found.add("momentum")
    if tensor.grad.is_sparse or bool(tensor.grad.any()):
        found.add("the old gradient")
    return found


def find_moving_statistics(recipe: AuditedRecipe) -> Iterator[Finding]:
    """Yield normalisations whose parameters are frozen, and whose running statistics move in training mode."""
    if recipe.frozen_by_plan:
        return  # this library holds them still
    names: list[str] = []
    seen: set[int] = set()
    for number, (model, made) in enumerate(zip(recipe.models, recipe.copies, strict=True)):
        prefix = f"{number}." if len(recipe.models) > 1 else ""
        twins = [module for _, module in list_modules(made)] if made is not None else None
        owners = _owners(model)
        for place, (path, module) in enumerate(list_modules(model, prefix)):
            if id(module) in seen or not _has_moving_statistics(module):
                continue
            seen.add(id(module))
            after = twins[place] if twins is not None and place < len(twins) else module
            would_move = after.training and (module.training or not model.training)
            own = owners[id(module)]
            if would_move and own and all(recipe.names[id(tensor)] in recipe.frozen for tensor in own):
                names.append(path.removesuffix(".") or "the model")
    if names:
        yield Finding(
            "batch-norm-moves",
            f"{len(names)} normalisation{'s' * (len(names) != 1)} with frozen parameters and training=True.",
            (),
            tuple(names),
            "Their running mean and variance follow each batch: the frozen layers change what they compute.",
            "call eval() on them after each model.train(), or freeze only where that is meant.",
        )


def _has_moving_statistics(module: Module) -> bool:
    if not isinstance(module, torch.nn.modules.batchnorm._NormBase):
        return False
    return bool(module.track_running_stats) and module.running_mean is not None and module.momentum != 0.0


def _owners(model: Module) -> dict[int, list[Tensor]]:
    """For each module its own parameters; for one without, those of the innermost module around it that has some."""
    found: dict[int, list[Tensor]] = {}

    def walk(module: Module, around: list[Tensor]) -> None:
        own: list[Tensor] = [*module.parameters()] or around
        found[id(module)] = own
        for child in module.children():
            walk(child, own)

    walk(model, [])
    return found
