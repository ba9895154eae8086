"""Folders of small images."""

from pathlib import Path
from typing import Any

import numpy as np


def save_image(path: Path, pixels: Any, **options: Any) -> None:
    """Write an array as an image of the file's ending; ``mode`` converts it before."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    mode = options.pop("mode", None)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)


def noise(seed: int, height: int, width: int, *channels: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog", "emu"), images: int = 5) -> Path:
    """Images of several sizes, JPEG and PNG, ``images`` of each class."""
    for number, name in enumerate(classes):
        for index in range(images):
            ending = ".JPG" if index % 2 else ".png"
            pixels = noise(10 * number + index, 20 + 3 * index, 30 - 2 * number, 3)
            save_image(root / name / f"{index}{ending}", pixels, format="JPEG" if index % 2 else "PNG")
    return root
