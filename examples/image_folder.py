"""Fine-tune on a folder of images: PETS=path/to/folder, with one folder of images for each class."""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import layered_lr as ll


def make_pets() -> str:
    """A folder of small coloured images, for those who have none at hand."""
    folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    for name, colour in (("cat", (200, 120, 60)), ("dog", (60, 120, 200))):
        (folder / name).mkdir()
        for number in range(20):
            pixels = rng.normal(colour, 40, (60, 80, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return str(folder)


def brighter(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change the light of one image, in a way that depends on seed, epoch and image alone."""
    return (image * rng.uniform(0.7, 1.3)).clip(0, 255).astype(np.uint8)


pets = ll.ImageFolder(os.environ.get("PETS") or make_pets(), size=64, share=0.2, broken="skip")
spec = ll.Spec(ll.AdamW(1e-3), [ll.Group("backbone", lr_scale=0.1), ll.Group("head")])

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None  # MAX_STEPS=2 makes a tiny run of it
result = ll.run(
    spec,
    data=pets,
    augment=brighter,
    sizes=ll.Sizes([48, 64], every=2),
    drop_last=False,
    batch_size=12,
    epochs=3,
    max_steps=max_steps,
)
print(ll.load_dataset(pets).class_names)
print(result)
