"""The models of the table: torchvision's classifiers on the smallest images that each takes, without random numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

CLASSES = 10

FIRST = (
    "resnet18", "alexnet", "vgg16", "squeezenet1_0", "densenet161", "inception_v3", "googlenet", "shufflenet_v2_x1_0",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "resnext50_32x4d", "wide_resnet50_2", "mnasnet1_0",
    "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "regnet_y_400mf", "maxvit_t",
)  # fmt: skip
"""One of each family, measured before the rest."""

PIXELS = (32, 64, 96, 128, 224)
LARGEST = 100_000_000  # parameters; the graph of a larger one does not fit beside torch's copies


class Size(NamedTuple):
    """The batch of a model: pixels of an image, images."""

    pixels: int
    images: int = 4


def list_zoo() -> list[str]:
    """List the classifiers of the installed torchvision that fit on a small machine, ``FIRST`` first, then by size."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    weights = {name: torchvision.models.get_model_weights(name) for name in names if name not in FIRST}
    counts = {name: next(iter(of)).meta["num_params"] for name, of in weights.items()}
    fitting = (name for name, count in counts.items() if count <= LARGEST or name.startswith("vgg"))  # without its head
    return [*FIRST, *sorted(fitting, key=counts.__getitem__)]


def find_size(name: str) -> Size:
    """Find the smallest images that a model trains on."""
    import torch

    if name == "maxvit_t":
        return Size(64, 2)
    for pixels in PIXELS[:-1]:
        model = make(name, pixels).to("meta").train()
        try:
            model(torch.zeros(Size(pixels).images, 3, pixels, pixels, device="meta"))
        except (RuntimeError, ValueError):  # a map of no pixels, or too few for a kernel
            continue
        return Size(pixels)
    return Size(PIXELS[-1])


def make_for_compare(name: str) -> Any:
    """Make a model for images of 32x32, at a module's top level, where another process can import it."""
    return make(name, 32)


def make(name: str, pixels: int | None = None) -> Any:
    """Make a model of torchvision whose forward pass draws nothing at random.

    Args:
        name: Of torchvision.
        pixels: Of the images, which a vision transformer has to know; None is the size that the table has.
    """
    import torch
    import torchvision

    options: dict[str, Any] = {"num_classes": CLASSES}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}  # with them it answers with three tensors in training
    if name.startswith("vit"):
        options["image_size"] = pixels or find_size(name).pixels
    if name.startswith("maxvit"):
        sizes = {"input_size": (64, 64), "stem_channels": 16, "block_channels": [16, 32], "block_layers": [1, 1]}
        rest = {"head_dim": 8, "stochastic_depth_prob": 0.0, "partition_size": 4}
        return torchvision.models.MaxVit(**sizes, **rest, num_classes=CLASSES)
    model = getattr(torchvision.models, name)(**options)
    if name == "alexnet" or name.startswith("vgg"):  # their heads have a hundred million parameters
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
