"""What wrappers such as ``torch.compile`` add to names, and names without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from layered_lr.models.nn_modules import CHECKPOINT_WRAPPER

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", CHECKPOINT_WRAPPER, "_torch_params"})
"""Components of names that only wrappers add."""


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Map each name to the name without the components that a wrapper has added.

    ``torch.compile`` adds ``_orig_mod`` to names, ``FullyShardedDataParallel``, ``checkpoint_wrapper`` and Keras on
    torch add the others of ``WRAPPERS``; these are removed everywhere. ``DataParallel`` and ``DistributedDataParallel``
    add ``module``. It is removed only if it is the only child of its parent, as it is under a wrapper. Where two names
    would become equal, both stay as they are.
    """
    plain = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in names}
    children: dict[tuple[str, ...], set[str]] = {}
    for parts in plain.values():
        for depth, part in enumerate(parts):
            children.setdefault(tuple(parts[:depth]), set()).add(part)

    def strip(parts: list[str]) -> str:
        last = len(parts) - 1
        return ".".join(
            part
            for depth, part in enumerate(parts)
            if part != "module" or depth == last or children[tuple(parts[:depth])] != {"module"}
        )

    stripped = {name: strip(parts) for name, parts in plain.items()}
    counts = Counter(stripped.values())
    return {name: short if short and counts[short] == 1 else name for name, short in stripped.items()}


def find_prefixes(name: str) -> list[str]:
    """What a wrapper may have put before a parameter's name, the shortest first.

    Example:
        >>> find_prefixes("module.net.weight")
        ['', 'module.', 'module.net.']
    """
    parts = name.split(".")
    return [".".join(parts[:depth]) + "." * bool(depth) for depth in range(len(parts))]
