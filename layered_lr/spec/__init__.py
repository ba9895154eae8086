"""The spec: what the user writes. Groups, phases and the optimizer, checked, in Python or TOML."""

from layered_lr.spec.groups import Group
from layered_lr.spec.phases import Phase
from layered_lr.spec.spec import RUN_TABLE, Spec
from layered_lr.spec.toml import read_toml

__all__ = ["RUN_TABLE", "Group", "Phase", "Spec", "read_toml"]
