"""A model's answers that are no classes of whole images, values and masks: as rows, as a table, as files."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Float64, Floats, Int64
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import as_path
from layered_lr.outputs import describe_obstacle, make_temporary
from layered_lr.printed import csv_cell

FIRST_COLUMN = "image,value "  # so does the header of each .csv file of values begin
_MOST_PARTS = 3  # of a mask that a line of the table names
_MOST_COLUMNS = 8  # of values that a table has room for


def read_masks(values: Floats, class_names: Sequence[str]) -> Int64 | None:
    """The likeliest class of each pixel, shape (N, H, W); None where the answer does not have a number for each class.

    Args:
        values: Of the model, shape (N, classes, H, W).
        class_names: Of the classes.
    """
    if values.ndim != 4 or values.shape[1] != len(class_names):
        return None
    masks: Int64 = values.argmax(axis=1)
    return masks


def sigmoid(values: Floats) -> Float64:
    """Compute the sigmoid of each number in float64."""
    halves: Float64 = np.tanh(values.astype(np.float64) / 2)
    return (1 + halves) / 2


def list_value_rows(
    images: Sequence[str], values: Floats, names: Sequence[str], shares: Float64 | None
) -> Iterator[dict[str, Any]]:
    """Yield a table for each image: its values by name, and their probabilities; of a spatial answer how large it is.

    Args:
        images: What each is called.
        values: Shape (N, ...).
        names: Of the values.
        shares: The probability of each value, where they are logits.
    """
    if values.ndim > 2:
        for image, value in zip(images, values, strict=True):
            numbers = {"lowest": value.min(), "mean": value.mean(dtype=np.float64), "highest": value.max()}
            yield {"image": image, "shape": list(value.shape)} | {word: float(each) for word, each in numbers.items()}
        return
    flat = values.reshape(len(values), -1)
    for place, image in enumerate(images):
        row = {"image": image, "values": dict(zip(names, flat[place].tolist(), strict=True))}
        if shares is not None:
            row["probabilities"] = dict(zip(names, shares.reshape(flat.shape)[place].tolist(), strict=True))
        yield row


def list_mask_rows(images: Sequence[str], masks: Int64, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a table for each image: the shape of its mask, and how many pixels each class has that is in it."""
    for image, mask in zip(images, masks, strict=True):
        counts = np.bincount(mask.ravel(), minlength=len(names)).tolist()
        found = {name: count for name, count in zip(names, counts, strict=True) if count}
        yield {"image": image, "shape": list(mask.shape), "pixels": found}


def table_of_answers(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a table that people read.

    Args:
        rows: From ``list_value_rows`` or ``list_mask_rows``, at least one.
    """
    if "pixels" in rows[0]:
        return ["image", "mask", "classes"], [[row["image"], _times(row["shape"]), _parts(row)] for row in rows]
    if "shape" in rows[0]:
        words = ("lowest", "mean", "highest")
        return ["image", "shape", *words], [
            [row["image"], _times(row["shape"]), *(f"{row[word]:.6g}" for word in words)] for row in rows
        ]
    names = list(rows[0]["values"])[:_MOST_COLUMNS]
    more = ["…"] if len(rows[0]["values"]) > _MOST_COLUMNS else []
    shares = rows[0].get("probabilities")
    headers = ["image", *(name if shares is not None else _column("value", name) for name in names), *more]
    what = "values" if shares is None else "probabilities"
    style = ".6g" if shares is None else ".3f"
    return headers, [[row["image"], *(f"{row[what][name]:{style}}" for name in names), *more] for row in rows]


def csv_rows(rows: Sequence[dict[str, Any]]) -> Iterator[list[Any]]:
    """Yield the header and a row for each image: a column for each value, then one for each probability.

    Args:
        rows: From ``list_value_rows``, of values that do not lie over pixels.
    """
    what = [("value", "values")] + [("probability", "probabilities")] * ("probabilities" in rows[0])
    yield ["image", *(_column(word, name) for word, key in what for name in rows[0][key])]
    for row in rows:
        yield [csv_cell(row["image"]), *(number for _, key in what for number in row[key].values())]


def _column(word: str, name: str) -> str:
    return f"{word} {csv_cell(name)}"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _parts(row: dict[str, Any]) -> str:
    """The largest parts of a mask, such as ``road 61 %, sky 39 %``."""
    pixels = row["pixels"]
    largest = sorted(pixels, key=lambda name: -pixels[name])
    said = [f"{name} {pixels[name] / sum(pixels.values()):.0%}" for name in largest[:_MOST_PARTS]]
    return ", ".join(said + ["…"] * (len(largest) > _MOST_PARTS))


def check_folder(what: str, folder: str | Path) -> Path:
    """Check that answers can be written into a folder: a new one, or an empty one.

    Args:
        what: The name of the option, for messages.
        folder: The folder.

    Raises:
        SpecError: They cannot.
    """
    path = as_path(what, folder)
    kind = describe_obstacle(path)
    if kind not in ("", "a folder"):
        raise SpecError(f"{what}={str(folder)!r}: is {kind}; must be a new folder, or an empty one.")
    try:
        if kind and any(path.iterdir()):
            raise SpecError(f"{what}={str(folder)!r}: the folder is not empty. Give a new one, or an empty one.")
    except OSError as error:
        raise SpecError(f"{what}={str(folder)!r}: cannot be read: {error.strerror}.") from None
    if not os.path.isdir(path.parent) or not os.access(path.parent, os.W_OK) or path.name in ("", "..", "."):
        raise SpecError(f"{what}={str(folder)!r}: must be a folder in one that exists and can be written to.")
    return path


def write_files(folder: Path, images: Sequence[str], answers: Array, classes: int | None) -> tuple[Path, ...]:
    """Write a file for each image into a new folder, all of them or none.

    Args:
        folder: From ``check_folder``.
        images: What each is called; its file has the same name with another ending.
        answers: Values, shape (N, ...), or masks of class numbers.
        classes: Of the masks, which become ``.png`` files; None for values, which become ``.npy`` files.

    Raises:
        LayeredLRError: They cannot be written.
    """
    ending = ".npy" if classes is None else ".png"
    names = [f"{stem}{ending}" for stem in _distinct_stems(images)]
    try:
        temporary, handle = make_temporary(folder.parent, is_folder=True)
        try:
            for name, answer in zip(names, answers, strict=True):
                (temporary / name).write_bytes(_npy(answer) if classes is None else _png(answer, classes))
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)
    except OSError as error:
        raise LayeredLRError(f"{folder}: cannot be written: {error.strerror or error}.") from None
    return tuple(folder / name for name in names)


def _distinct_stems(images: Sequence[str]) -> list[str]:
    """The images' names without their endings; with a number in front where two of them would be the same."""
    stems = [Path(image).stem for image in images]
    if len({stem.casefold() for stem in stems}) == len(stems):
        return stems
    digits = len(str(len(stems) - 1))
    return [f"{place:0{digits}}-{stem}" for place, stem in enumerate(stems)]


def _npy(answer: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, answer, allow_pickle=False)
    return file.getvalue()


def _png(mask: Array, classes: int) -> bytes:
    from PIL import Image

    if classes > 1 << 16:
        raise SpecError(f"a .png file holds masks of at most 65536 classes, and these have {classes}.")
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8 if classes <= 256 else np.uint16)).save(file, "PNG")
    return file.getvalue()
