"""The models of the table: one of each family of torchvision's classifiers, at tiny sizes, without random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CLASSES = 10


class Size(NamedTuple):
    """How a model is made for the table: pixels of an image, images of a batch."""

    pixels: int = 64
    images: int = 4


ZOO: Mapping[str, Size] = {
    "resnet18": Size(),
    "alexnet": Size(),
    "vgg16": Size(32),
    "squeezenet1_0": Size(),
    "densenet161": Size(32),
    "inception_v3": Size(128),
    "googlenet": Size(),
    "shufflenet_v2_x1_0": Size(),
    "mobilenet_v2": Size(),
    "mobilenet_v3_large": Size(),
    "mobilenet_v3_small": Size(),
    "resnext50_32x4d": Size(32),
    "wide_resnet50_2": Size(32),
    "mnasnet1_0": Size(),
    "efficientnet_b0": Size(),
    "efficientnet_v2_s": Size(32),
    "regnet_y_400mf": Size(32),
    "convnext_tiny": Size(32),
    "vit_b_16": Size(32),
    "swin_t": Size(32),
    "swin_v2_t": Size(32),
    "maxvit_t": Size(64, 2),
}


def make(name: str) -> Any:
    """Make a model of torchvision whose forward pass draws nothing at random."""
    import torch
    import torchvision

    options: dict[str, Any] = {"num_classes": CLASSES}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if name.startswith("vit"):
        options["image_size"] = ZOO[name].pixels
    if name.startswith("maxvit"):
        sizes = {"input_size": (64, 64), "stem_channels": 16, "block_channels": [16, 32], "block_layers": [1, 1]}
        rest = {"head_dim": 8, "stochastic_depth_prob": 0.0, "partition_size": 4}
        return torchvision.models.MaxVit(**sizes, **rest, num_classes=CLASSES)
    model = getattr(torchvision.models, name)(**options)
    if name in ("alexnet", "vgg16"):  # their heads have a hundred million parameters
        linears = [module for module in model.classifier if isinstance(module, torch.nn.Linear)]
        first = torch.nn.Linear(linears[0].in_features, 64)
        model.classifier = torch.nn.Sequential(first, torch.nn.ReLU(True), torch.nn.Linear(64, CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():  # a head of zeros would hide what comes before it
            torch.nn.init.normal_(parameter, std=0.1)
    return model
