"""Optimizer states that belong to another parameter."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from layered_lr.findings import Finding
from layered_lr.models.nn_modules import plain_name
from layered_lr_torch.audit.recipe import AuditedRecipe, ListedGroup

# What torch's optimizers keep in the shape of the parameter.
_LIKE_PARAMETER = frozenset(
    [
        *("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "grad_avg"),
        *("acc_delta", "sum", "prev", "step_size", "ax"),
    ]
)


def find_swapped_states(recipe: AuditedRecipe) -> Iterator[Finding]:
    """Yield states whose shapes, names or counters do not fit their parameters."""
    for group in recipe.groups:
        swapped = _other_shapes(recipe, group) | _other_names(recipe, group)
        if swapped:
            yield Finding(
                "state-of-another",
                f"The state of {len(swapped)} parameter{'s' * (len(swapped) != 1)} has another shape or another name.",
                (group.label,),
                recipe.in_order(swapped),
                "A state_dict goes by the order of parameters: moments of one parameter move another one.",
                "load it into one whose groups list the parameters in the order of the saved one.",
            )
            continue
        counts = _counters(recipe, group)
        if len(set(counts.values())) > 1:
            usual = max(counts.values())
            late = {name for name, count in counts.items() if count != usual}
            yield Finding(
                "state-of-another",
                f"The state of {len(late)} of {len(counts)} parameters counts {min(counts.values()):g} updates, where "
                f"others of the group count {usual:g}.",
                (group.label,),
                recipe.in_order(late),
                "They belong to other parameters, or began late: their bias correction differs.",
                "load states in the saved order; give parameters that begin late a group of their own.",
            )


def _other_shapes(recipe: AuditedRecipe, group: ListedGroup) -> set[str]:
    found = set()
    for tensor in group.options["params"]:
        for slot, value in group.optimizer.state.get(tensor, {}).items():
            if slot in _LIKE_PARAMETER and isinstance(value, torch.Tensor) and value.shape != tensor.shape:
                found.add(recipe.name_of(tensor))
    return found


def _other_names(recipe: AuditedRecipe, group: ListedGroup) -> set[str]:
    """Names that ``load_state_dict`` has brought along with the states, and that are other parameters' names."""
    noted = group.options.get("param_names", ())
    if len(noted) != len(group.options["params"]) or not any(
        group.optimizer.state.get(tensor) for tensor in group.options["params"]
    ):
        return set()
    known = recipe.tensors.keys()
    return {
        recipe.names[id(tensor)]
        for name, tensor in zip(noted, group.options["params"], strict=True)
        if id(tensor) in recipe.names
        and plain_name(name) in known
        and plain_name(name) != recipe.names[id(tensor)]
        and recipe.tensors[plain_name(name)] is not tensor
    }


def _counters(recipe: AuditedRecipe, group: ListedGroup) -> dict[str, float]:
    return {
        recipe.name_of(tensor): float(state["step"])
        for tensor in group.options["params"]
        if (state := group.optimizer.state.get(tensor))
        and "step" in state
        and recipe.name_of(tensor) not in recipe.frozen
    }
