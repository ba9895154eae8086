"""Groups by depth: one for each layer, with rates that fall from the head to the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from layered_lr.models.depth import find_depths
from layered_lr.models.matching import Matcher, assign
from layered_lr.models.parameter import Parameter
from layered_lr.plans.rules import rule_of
from layered_lr.spec.groups import Group
from layered_lr.spec.spec import Spec

_LAYER = "layer "  # and its number: the name of a layer's group


def add_layers(spec: Spec, parameters: Sequence[Parameter]) -> Spec:
    """Return the spec with a group for each layer, if it has a ``layer_decay``: of parameters that no group matches.

    Raises:
        SpecError: The names do not tell how deep the layers lie.
    """
    if spec.layer_decay is None:
        return spec
    free = assign([rule_of(group, parameters) for group in spec.groups], Matcher(parameters))[-1]
    if not free:
        return spec
    depths = find_depths(parameters)
    top = max(depths.values())
    layers = make_layers({parameter.name: depths[parameter.name] for parameter in free}, spec.layer_decay, top)
    return replace(spec, groups=(*spec.groups, *layers))


def make_layers(depths: Mapping[str, int], decay: float, top: int) -> list[Group]:
    """Return a group for each depth, with ``decay`` to the power of its distance from the top as ``lr_scale``."""
    members: dict[int, list[str]] = {}
    for name, depth in depths.items():
        members.setdefault(depth, []).append(name)
    return [
        Group(members[depth], lr_scale=decay ** (top - depth), name=f"{_LAYER}{depth}") for depth in sorted(members)
    ]


def describe_idle_decay(spec: Spec) -> Iterator[str]:
    """Yield a note where ``layer_decay`` changes no rate.

    Args:
        spec: After ``add_layers``.
    """
    if spec.layer_decay is not None and not any(group.label.startswith(_LAYER) for group in spec.groups):
        yield (
            f"layer_decay={spec.layer_decay:g} changes no rate: the groups have taken all parameters. It is for those "
            "that no group matches; leave groups out, such as the one of the backbone"
        )
