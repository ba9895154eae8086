"""Biases and normalisations of which some decay and others do not."""

from __future__ import annotations

from collections.abc import Iterator

from layered_lr.findings import Finding
from layered_lr.models.where import is_bias, is_of_a_norm
from layered_lr_torch.audit.recipe import AuditedRecipe

_LARGE = 2  # dimensions of an array that usually decays


def find_uneven_decay(recipe: AuditedRecipe) -> Iterator[Finding]:
    """Yield biases, or parameters of normalisations, that decay where others of their kind are kept from it.

    The kinds are looked at one by one, because torchvision's ``norm_weight_decay=0`` lets biases decay on purpose. A
    group that has no decay for weights either keeps nothing from it.
    """
    kinds = _kinds(recipe)
    for kind, words in (("bias", "biases"), ("norm", "parameters of normalisations")):
        decayed: dict[str, str] = {}
        free: set[str] = set()
        for group in recipe.groups:
            tensors = group.options["params"]
            own = {recipe.names[id(each)] for each in tensors if kinds.get(id(each)) == kind}
            if group.options.get("weight_decay"):
                decayed |= dict.fromkeys(own - recipe.frozen, group.label)
            elif not any(each.ndim >= _LARGE and id(each) not in kinds for each in tensors):
                free |= own
        if decayed and free:
            yield Finding(
                "decay-differs",
                f"{len(decayed)} {words} decay, and {len(free)} do not.",
                tuple(dict.fromkeys(decayed.values())),
                recipe.in_order(set(decayed)),
                "They are pulled to 0, and the others are not: a rule for names or types has missed them.",
                "let the rule take them too, such as every parameter with ndim <= 1.",
            )


def _kinds(recipe: AuditedRecipe) -> dict[int, str]:
    """``norm`` or ``bias`` for each parameter that is one, by the tensor's id; as ``ll.where`` tells them."""
    return {
        key: "norm" if is_of_a_norm(parameter) else "bias"
        for key, parameter in recipe.parameters.items()
        if len(parameter.shape) < _LARGE and (is_of_a_norm(parameter) or is_bias(parameter))
    }
