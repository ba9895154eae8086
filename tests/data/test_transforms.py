"""Augmentation by a function or a library: seeded by epoch and image, and what is said of wrong ones."""

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, Dataset

PIXELS = np.random.default_rng(0).integers(1, 256, (10, 6, 6, 3), dtype=np.uint8)
DATA = Dataset("ten", PIXELS, np.arange(10), PIXELS[:4], np.arange(4))


def by_image(batch_size: int, augment: Any, epoch: int = 1, seed: int = 5) -> dict[int, bytes]:
    batches = Batches(DATA, batch_size, seed, augment, drop_last=False)
    return {int(y): x.tobytes() for images, labels in batches.epoch(epoch) for x, y in zip(images, labels, strict=True)}


def brighten(image: Any, rng: np.random.Generator) -> Any:
    image += rng.integers(1, 200, dtype=np.uint8)  # in place: the data must not change
    return image


def draws_of_every_library(image: Any) -> Any:
    torch = pytest.importorskip("torch")
    numbers = [random.randrange(256), np.random.randint(256), int(torch.randint(256, ()))]
    return np.full((6, 6, 3), numbers, np.uint8)


@pytest.mark.parametrize("augment", [brighten, ll.Transform(draws_of_every_library)])
def test_an_image_is_augmented_by_seed_epoch_and_number_alone(augment: Any) -> None:
    before = PIXELS.copy()
    first = by_image(3, augment)
    assert len(first) == 10 and first == by_image(10, augment) == by_image(1, augment)
    assert len(set(first.values())) == 10
    others = [by_image(3, augment, epoch=2), by_image(3, augment, seed=6), by_image(3, None)]
    assert all(first[number] != other[number] for other in others for number in first)
    np.testing.assert_array_equal(PIXELS, before)


def test_the_generators_of_others_go_on_as_they_were() -> None:
    torch = pytest.importorskip("torch")
    states = []
    for augment in (None, ll.Transform(draws_of_every_library)):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        by_image(5, augment)
        states.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert states[0] == states[1]


LATE = """
import sys, numpy as np, layered_lr as ll
def late(image):
    import torch
    return np.full((2, 2, 3), int(torch.randint(256, ())), np.uint8)
image = np.zeros((2, 2, 3), np.uint8)
found = [int(ll.Transform(late)(image, np.random.default_rng(7))[0, 0, 0]) for _ in range(2)]
assert found[0] == found[1], found
"""


def test_a_library_that_the_transform_itself_imports_is_seeded_too() -> None:
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", LATE], check=True)


def test_a_transform_of_torchvision_is_taken_as_it_is() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    transform = v2.Compose([v2.RandAugment(), v2.ColorJitter(0.4)])
    assert by_image(4, transform) == by_image(4, ll.Transform(transform)) != by_image(4, None)


def test_grey_and_float_images() -> None:
    grey = Dataset("grey", PIXELS[..., :1], np.arange(10), PIXELS[..., :1], np.arange(10))
    from PIL import ImageOps

    def invert(image: Any, rng: Any) -> Any:
        return 255 - image

    ours = next(Batches(grey, 10, augment=invert).epoch(0))[0]
    assert next(Batches(grey, 10, augment=ll.Transform(ImageOps.invert)).epoch(0))[0].tobytes() == ours.tobytes()
    floats = Dataset("floats", np.ones((4, 2, 3, 3)), np.arange(4), np.ones((4, 2, 3, 3)), np.arange(4))
    assert (next(Batches(floats, 4, augment=lambda image, rng: image * 2).epoch(0))[0] == 2).all()
    with pytest.raises(ll.SpecError, match="takes uint8 images of 1 or 3 channels"):
        next(Batches(floats, 4, augment=ll.Transform(ImageOps.invert)).epoch(0))


def raises(image: Any, rng: Any) -> Any:
    raise KeyError("lost")


WRONG: list[tuple[Callable[..., Any], str]] = [
    (raises, r"augment failed on training image \d: KeyError: 'lost'"),
    (lambda image: image, r"augment failed on training image \d: TypeError"),
    (lambda image, rng: None, r"It made object of shape \(\)"),
    (lambda image, rng: image[:3], r"uint8 of shape \(6, 6, 3\)\. It made uint8 of shape \(3, 6, 3\)"),
    (lambda image, rng: image / 255, r"It made float64 .* leave out what makes tensors or floats"),
]


@pytest.mark.parametrize(("augment", "words"), WRONG)
def test_what_a_function_does_wrong_is_said_with_the_image(augment: Any, words: str) -> None:
    with pytest.raises(ll.DataError, match=words):
        next(Batches(DATA, 4, augment=augment).epoch(0))


@pytest.mark.parametrize("value", ["yes", 1, 0.5, [brighten], "random"])
def test_what_is_no_function_is_refused(value: Any) -> None:
    with pytest.raises(ll.SpecError, match="augment="):
        ll.run(augment=value)
    with pytest.raises(ll.SpecError):
        ll.Transform(value)


def test_a_function_that_a_folder_names_is_not_imported_without_trust() -> None:
    from layered_lr.training.in_file import marked, names_code
    from layered_lr.training.options import RunOptions

    assert names_code({"augment": "os:getcwd"}, {})
    with pytest.raises(ll.SpecError, match=r"augment='os:getcwd': a file names code to import"):
        RunOptions(**marked({"augment": "os:getcwd"}))
