"""``layer_decay``: a list of groups, one for each layer, with rates that fall from the head to the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.models.depth import find_depths
from layered_lr.models.nn_modules import Module
from layered_lr.models.patterns import check_pattern
from layered_lr.plans.layers import make_layers
from layered_lr.plans.resolve import read_parameters
from layered_lr.printed import shown
from layered_lr.scalars import read_number
from layered_lr.spec.groups import Group


def layer_decay(
    model: Module | Sequence[tuple[Any, ...]], decay: float = 0.75, *, layers: Sequence[str] = ()
) -> list[Group]:
    """Make a group for each layer of a model, whose rates fall from the head to the images.

    The group of depth ``d`` has the ``lr_scale`` ``decay ** (deepest - d)``: 1 for the head, the smallest for the stem,
    as in BEiT and timm. ``Spec(layer_decay=0.75)`` does the same for a model that is built later, and in recipes.

    How layers are counted: a model of timm knows it itself (``group_matcher``), and the groups are those of timm's
    ``param_groups_layer_decay``. Elsewhere numbers in names tell it. A *block* is a numbered module with modules in it,
    such as ``layer1.0``, ``blocks.3`` or ``encoder.layer.11``; blocks count in the model's order. What stands before
    the first block is layer 0 (stem, embeddings, tokens). What comes after the last block is the head, with two
    exceptions: normalisations belong to the last block, and convolutions outside the head's module are a layer of their
    own. Auxiliary heads are heads. In a model without blocks, each module with parameters is a layer. Tied weights are
    as deep as their first use.

    Args:
        model: A model of torch or OneFlow, or names and shapes as ``resolve`` takes them.
        decay: The factor from a layer to the one before it: > 0, at most 1.
        layers: Patterns as in ``Group.match``, from the images to the head, where names do not tell the order.

    Raises:
        SpecError: ``decay`` is out of its bounds, or the names do not tell how deep the layers lie.

    Example:
        >>> import layered_lr as ll
        >>> names = ["stem.weight", "blocks.0.fc.weight", "blocks.1.fc.weight", "head.weight"]
        >>> groups = ll.layer_decay([(name, (4, 4)) for name in names], decay=0.5)
        >>> {group.name: group.lr_scale for group in groups}
        {'layer 0': 0.125, 'layer 1': 0.25, 'layer 2': 0.5, 'layer 3': 1.0}
    """
    factor = read_number(decay)
    if factor is None or not 0 < factor <= 1:
        raise SpecError(
            f"decay={shown(decay)}: must be > 0 and at most 1, the factor from a layer to the one before it."
        )
    parameters = read_parameters(model)
    patterns = [check_pattern(pattern, "layers") for pattern in ([layers] if isinstance(layers, str) else layers)]
    depths = find_depths(parameters, patterns)
    return make_layers(depths, factor, max(depths.values()))
