"""Augmentation by the user's own function, or by a library's transform: seeded by epoch and image."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from layered_lr.arrays import Array, Int64
from layered_lr.data.random_draws import make_generator
from layered_lr.errors import DataError, LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.printed import shown

Augmentation: TypeAlias = Callable[[Any, np.random.Generator], Any]
"""Takes one image and a generator, and gives an image of the same shape and dtype."""

_LIBRARIES = ("torch", "torchvision")


class Transform:
    """A transform of torchvision, or of another library, as an augmentation: ``ll.run(augment=ll.Transform(...))``.

    It is called with a Pillow image, and answers with one. While it runs, the generators that such transforms draw from
    (those of torch, NumPy and Python's ``random``) begin at a seed that depends on the run's seed, the epoch and the
    image alone; then they go on as they were. So the same image is augmented in the same way on every backend, with any
    batch size, and after a resume.

    Args:
        transform: A callable that takes a Pillow image and returns an image of the same size and mode: a Pillow image,
            or an array.

    Raises:
        SpecError: It cannot be called.

    Example:
        >>> import layered_lr as ll
        >>> from PIL import ImageOps
        >>> import numpy as np
        >>> invert = ll.Transform(ImageOps.invert)
        >>> invert(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0))
        array([[[255, 255, 255]]], dtype=uint8)
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        if not callable(transform) or isinstance(transform, type):
            raise SpecError(f"Transform({shown(transform)}): must be a function, or an object that can be called.")
        self.transform = transform

    def __repr__(self) -> str:
        return f"Transform({self.transform!r})"

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        """Transform one image.

        Args:
            image: uint8 ``(H, W, 3)`` or ``(H, W, 1)``.
            rng: Its draws are the seed.
        """
        from PIL import Image

        if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
            raise SpecError(
                f"augment={self!r}: takes uint8 images of 1 or 3 channels, which Pillow can hold. Received "
                f"{image.dtype} of shape {image.shape}. Give a function of your own: augment=fn(image, rng)."
            )
        seed, had_torch = int(rng.integers(2**32)), "torch" in sys.modules
        pillow_image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        answer = self._transform_seeded(pillow_image, seed)
        if not had_torch and "torch" in sys.modules:  # the transform itself has imported it, after the seeding
            answer = self._transform_seeded(pillow_image, seed)
        array = np.asarray(answer)
        return array[:, :, None] if array.ndim == 2 and image.shape[2] == 1 else array

    def _transform_seeded(self, image: Any, seed: int) -> Any:
        with seeded_generators(seed):
            return self.transform(image.copy())


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Let the generators of Python, NumPy and (where it is imported) torch's CPU begin at a seed, for a while."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch is not None:
            torch.default_generator.set_state(before[2])


def as_augmentation(value: Callable[..., Any]) -> Augmentation:
    """A function of image and generator as it is; an object of torchvision's as a ``Transform``."""
    roots = {str(kind.__module__).partition(".")[0] for kind in type(value).__mro__}
    return Transform(value) if roots & set(_LIBRARIES) else value


def augment_images(images: Array, chosen: Int64, function: Augmentation, seed: int, epoch: int) -> Array:
    """Augment images one by one.

    Args:
        images: uint8 NHWC or float32 NCHW; each is given to the function as an array of its own.
        chosen: Their numbers in the training set.
        function: What augments one of them.
        seed: Of the run.
        epoch: 0-based.

    Returns:
        The same shape and dtype, newly allocated.

    Raises:
        DataError: The function raises, or answers with something else than such an image.
    """
    augmented = np.empty_like(images)
    for place, index in enumerate(chosen.tolist()):
        try:
            answer = np.asarray(function(images[place].copy(), make_generator(seed, epoch, index)))
        except LayeredLRError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise DataError(f"augment failed on training image {index}: {describe_error(error)}") from error
        if answer.shape != images.shape[1:] or answer.dtype != images.dtype:
            raise DataError(
                f"augment must answer with an image like the one that it got, {images.dtype} of shape "
                f"{images.shape[1:]}. It made {answer.dtype} of shape {answer.shape} of training image {index}. "
                "Normalisation comes after it, so leave out what makes tensors or floats."
            )
        augmented[place] = answer
    return augmented
