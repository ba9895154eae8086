"""A torchvision model with a new head, on arrays that are normalised as its weights want it."""

import os

import numpy as np
import torch
from torchvision.models import resnet18

import layered_lr as ll

CLASSES = 10


def make_model() -> torch.nn.Module:
    """A ResNet-18; ``weights="DEFAULT"`` downloads ImageNet's."""
    model = resnet18(weights=os.environ.get("WEIGHTS"))
    model.fc = torch.nn.Linear(model.fc.in_features, CLASSES)
    return model


# Float images are used as they are, so ImageNet's own mean and deviation go here.
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
digits = ll.load_dataset("digits")  # uint8 (N, H, W, C)
x_train, x_test = (((x / 255 - mean) / std).transpose(0, 3, 1, 2) for x in (digits.x_train, digits.x_test))

spec = ll.Spec(
    ll.AdamW(lr=1e-3, weight_decay=0.01),
    groups=[
        ll.Group("fc", name="head"),  # the first group that matches gets a parameter
        ll.Group("*", name="backbone", lr_scale=0.1),
    ],
    no_weight_decay="1d",
    phases=ll.phases.head_first("1 epoch", head="head"),
)

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
data = (x_train, digits.y_train, x_test, digits.y_test)
print(ll.run(spec, model=make_model, data=data, epochs=3, max_steps=max_steps))
