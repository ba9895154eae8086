"""What the core takes from here for models by name; ``layered_lr.registry`` names this module."""

from layered_lr_torch.zoo_building import check_name, describe, list_names, list_timm_names
from layered_lr_torch.zoo_model import HeadedModel, ZooModel
from layered_lr_torch.zoo_weights import find_transform, read_named

__all__ = [
    "HeadedModel",
    "ZooModel",
    "check_name",
    "describe",
    "find_transform",
    "list_names",
    "list_timm_names",
    "read_named",
]
