"""The spec, which the user writes in Python or TOML: layer groups, an optimizer, a schedule, and phases."""

from layered_lr.spec.groups import Group
from layered_lr.spec.phases import Phase
from layered_lr.spec.spec import RUN_TABLE, Spec
from layered_lr.spec.toml import read_toml

__all__ = ["RUN_TABLE", "Group", "Phase", "Spec", "read_toml"]
