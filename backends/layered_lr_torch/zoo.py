"""What the core takes from here for models by name; ``layered_lr.registry`` names this module."""

from layered_lr_torch.heads import find_head_path, put_head
from layered_lr_torch.unused_layers import find_answering, takes_images
from layered_lr_torch.zoo_building import check_name, describe, list_names, list_timm_names
from layered_lr_torch.zoo_model import ZooModel
from layered_lr_torch.zoo_weights import find_file_transform, find_transform, has_weights, read_named

__all__ = [
    "ZooModel",
    "check_name",
    "describe",
    "find_answering",
    "find_file_transform",
    "find_head_path",
    "find_transform",
    "has_weights",
    "list_names",
    "list_timm_names",
    "put_head",
    "read_named",
    "takes_images",
]
