"""Parameters in no group, in two, or of another model."""

from __future__ import annotations

from collections.abc import Iterator

from layered_lr.findings import Finding
from layered_lr_torch.audit.recipe import AuditedRecipe


def find_strays(recipe: AuditedRecipe) -> Iterator[Finding]:
    """Yield what is wrong with who is in which group."""
    yield from _find_missing(recipe)
    yield from _find_doubled(recipe)
    yield from _find_foreign(recipe)


def _find_missing(recipe: AuditedRecipe) -> Iterator[Finding]:
    missing = {
        name
        for name, tensor in recipe.tensors.items()
        if name not in recipe.frozen and id(tensor) not in recipe.groups_of
    }
    if missing:
        yield Finding(
            "in-no-group",
            f"{_count(missing, 'parameter')} of the model with requires_grad=True: in no group of an optimizer.",
            (),
            recipe.in_order(missing),
            "They stay as they are, though each backward pass computes their gradients.",
            "add them to a group, or set requires_grad=False.",
        )


def _find_doubled(recipe: AuditedRecipe) -> Iterator[Finding]:
    doubled: dict[tuple[str, ...], set[str]] = {}
    by_id = {id(tensor): tensor for group in recipe.groups for tensor in group.options["params"]}
    for key, groups in recipe.groups_of.items():
        if len(groups) > 1:
            labels = tuple(dict.fromkeys(group.label for group in groups))
            doubled.setdefault(labels, set()).add(recipe.name_of(by_id[key]))
    for labels, names in doubled.items():
        place = "twice in one group" if len(labels) == 1 else f"in {len(labels)} groups"
        yield Finding(
            "in-two-groups",
            f"{_count(names, 'parameter')}: {place}.",
            labels,
            recipe.in_order(names),
            "Each step moves them more than once, by the rates and the decay of each place.",
            "keep each parameter in one group of one optimizer.",
        )


def _find_foreign(recipe: AuditedRecipe) -> Iterator[Finding]:
    foreign = {
        group.label: [tensor for tensor in group.options["params"] if id(tensor) not in recipe.names]
        for group in recipe.groups
    }
    labels = tuple(label for label, tensors in foreign.items() if tensors)
    if labels:
        tensors = [tensor for found in foreign.values() for tensor in found]
        yield Finding(
            "foreign-parameter",
            f"{len(tensors)} of the {sum(len(group.options['params']) for group in recipe.groups)} parameters of the "
            f"optimizer: not the model's, such as {recipe.name_of(tensors[0])}.",
            labels,
            (),
            "The optimizer moves tensors that the model does not use: a layer was replaced, or the model copied, after "
            "the optimizer was made.",
            "make the optimizer after the last change of the model. If they are parameters of a loss, give "
            "model=[model, loss].",
        )


def _count(names: set[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}"
