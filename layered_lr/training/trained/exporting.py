"""Exports a trained model: as ONNX, as a program of ``torch.export``, or as a plain ``state_dict``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from layered_lr.arrays import Array, Weights
from layered_lr.console import say
from layered_lr.data.normalisation import normalisation_table, normalise
from layered_lr.errors import BackendUnavailable, LayeredLRError, SpecError, ToolUnavailable, Unsupported
from layered_lr.files import as_path, describe_error
from layered_lr.outputs import check_output, describe_obstacle, make_temporary, write_whole
from layered_lr.printed import shown
from layered_lr.registry import FRAMEWORKS, TABLE, load_exporter
from layered_lr.spelling import did_you_mean
from layered_lr.state.safetensors_files import safetensors_bytes
from layered_lr.tools import is_installed
from layered_lr.training.trained.predictions import want_images
from layered_lr.training.trained.trained_model import Answerer, Trained, Which, find_input, open_model, pick_weights
from layered_lr.version import __version__
from layered_lr.yes_or_no import check_yes_or_no

Format: TypeAlias = Literal["onnx", "torch.export", "torch", "safetensors", "oneflow"]

_BY_SUFFIX: Mapping[str, Format] = {
    ".onnx": "onnx",
    ".pt2": "torch.export",
    ".pth": "torch",
    ".pt": "torch",
    ".safetensors": "safetensors",
    ".oneflow": "oneflow",
}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_BATCHES = (1, 3)  # images in the batches that a file is checked with: any number must do

# How far a file's answer may be from a framework's, relative to the largest number of the answer. Runtimes sum up in
# other orders: deep networks differ by about 1e-5 in float32. What means something else differs by far more.
_CLOSE = 1e-3


@dataclass(frozen=True)
class Export:
    """A file of a trained model. ``Result.export`` makes it.

    Args:
        path: The file; for OneFlow's own format a folder.
        format: ``"onnx"``, ``"torch.export"``, ``"torch"``, ``"safetensors"`` or ``"oneflow"``.
        weights: ``"average"`` or ``"last"``.
        differences: How far the file's answers to random images are from each framework's, relative to the largest
            number of the answer, by backend. Weights alone are compared to the bit instead, and have none.
        unchecked: Why the answer was not compared with a framework, by backend.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> result = ll.run(ll.Spec(ll.SGD(0.1)), model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.export(f"{folder}/weights.safetensors").format
        'safetensors'
    """

    path: Path
    format: Format
    weights: Which
    differences: Mapping[str, float]
    unchecked: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"written: {self.path} ({self.format}, weights: {self.weights})"]
        lines += [f"its answers equal those of {name} within {far:.1e}" for name, far in self.differences.items()]
        lines += [f"not compared with {name}: {why}" for name, why in self.unchecked.items()]
        return "\n".join(lines)


def export(
    trained: Trained,
    path: str | Path,
    *,
    format: Format | None = None,
    weights: Which | None = None,
    normalise: bool = False,
    check: bool = True,
    overwrite: bool = False,
    model: str | Callable[[], Any] | None = None,
) -> Export:
    """Write a run's model to a file; see ``Result.export``."""
    for name, value in (("normalise", normalise), ("check", check), ("overwrite", overwrite)):
        check_yes_or_no("export", name, value)
    chosen, file = _find_format(path, format), as_path("path", path)
    is_model = chosen in ("onnx", "torch.export")
    if normalise and not is_model:
        raise SpecError(
            f"export: normalise=True puts the normalisation into a model; {file.name} holds weights alone. Leave it "
            "out, or export an .onnx or a .pt2."
        )
    _check_place(file, chosen, overwrite)
    which, arrays = pick_weights(trained, weights)
    if is_model:
        return _export_model(trained, file, chosen, which, normalise, check, model)
    _write_weights(file, chosen, arrays)
    return Export(file, chosen, which, {}, {})


def _find_format(path: object, format: object) -> Format:
    if format is not None:
        for known in _BY_SUFFIX.values():
            if format == known:
                return known
        words = list(dict.fromkeys(_BY_SUFFIX.values()))
        hint = did_you_mean(format, words) if isinstance(format, str) else ""
        raise SpecError(f"export: format={shown(format)}: must be one of {', '.join(words)}.{hint}")
    file = as_path("path", path)
    suffix = file.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise SpecError(
            f"export: path={str(file)!r}: must end in one of {', '.join(_BY_SUFFIX)}, which says the format; or give "
            f"format=... (--format).{did_you_mean(suffix, _BY_SUFFIX) if suffix else ''}"
        )
    return _BY_SUFFIX[suffix]


def _check_place(file: Path, format: Format, overwrite: bool) -> None:
    """Refuse a place where nothing can be written, or where something of the user's is."""
    if format == "oneflow" and describe_obstacle(file) == "a folder":
        if not overwrite or not os.path.isfile(file / "pickled_data"):
            raise SpecError(
                f"export: path={str(file)!r}: there is a folder already. Give another name, or overwrite=True "
                "(--overwrite), which replaces a folder of OneFlow's weights and no other one."
            )
        check_output("path", file.parent / f"{file.name}.new")
        return
    check_output("path", file)
    if os.path.lexists(file) and not overwrite:
        raise SpecError(
            f"export: path={str(file)!r}: there is a file already. Give another name, or overwrite=True (--overwrite)."
        )


def _write_weights(file: Path, format: Format, arrays: Weights) -> None:
    if format == "safetensors":
        write_whole(file, [safetensors_bytes(arrays)])
        return
    framework = "oneflow" if format == "oneflow" else "torch"
    try:
        exporter = load_exporter(framework)
    except ImportError:
        loop = FRAMEWORKS[framework].loop
        raise BackendUnavailable(
            loop,
            f"writes {format} files, and {framework} does not work here",
            "Export a .safetensors, which needs neither framework.",
        ) from None
    if format == "torch":
        write_whole(file, [exporter.make_state_dict(arrays)])
        return
    _write_folder(file, arrays, exporter)


def _write_folder(folder: Path, arrays: Weights, exporter: Any) -> None:
    """Write OneFlow's folder, whole or not at all, and read it once."""
    try:
        temporary, handle = make_temporary(folder.parent, is_folder=True)
        try:
            exporter.write_state_dict(temporary / "state", arrays)
            again = exporter.read_state_dict(temporary / "state")
            if any(again[name].tobytes() != np.asarray(array).tobytes() for name, array in arrays.items()):
                raise Unsupported("export: OneFlow reads other numbers than were written. Export a .safetensors.")
            if os.path.isdir(folder):
                folder.rename(temporary / "before")
            elif os.path.lexists(folder):
                folder.unlink()
            (temporary / "state").rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(handle)
    except OSError as error:
        raise LayeredLRError(f"{folder}: cannot be written: {error.strerror or error}.") from None


def _export_model(
    trained: Trained,
    file: Path,
    format: Format,
    which: Which,
    normalises: bool,
    check: bool,
    model: str | Callable[[], Any] | None,
) -> Export:
    takes = find_input(trained)
    wanted = want_images(takes)
    if normalises and wanted.normalisation is None:
        raise SpecError(
            "export: normalise=True: the run was trained on floats that were prepared before, and normalises nothing. "
            "Leave it out."
        )
    if format == "onnx":
        _check_onnx()
    opened = open_model(trained, "torch-eager", which, model, "cpu")
    exporter = load_exporter("torch")
    about = {
        "layered_lr": __version__,
        "layered_lr.input": takes.to_dict(),
        "layered_lr.pixels": "uint8, normalised inside" if normalises else "float32, normalised before",
    }
    normalisation = wanted.normalisation if normalises else None
    answers = "values" if takes.targets == "values" else "logits"
    if format == "onnx":
        exporter.widen(opened.model)
        content = exporter.make_onnx(opened.model, takes.image_shape, normalisation, about, answers)
    else:
        content = exporter.make_program(opened.model, takes.image_shape, normalisation, about)
    differences: dict[str, float] = {}
    unchecked: dict[str, str] = {}
    if check:
        run = _open_onnx(content) if format == "onnx" else exporter.open_program(content)
        differences, unchecked = _compare(trained, opened, run, normalises, model)
    write_whole(file, [content])
    return Export(file, format, which, differences, unchecked)


def _check_onnx() -> None:
    """Refuse to export ONNX where what makes or checks it is missing.

    Raises:
        ToolUnavailable: It is.
    """
    missing = [name for name in _ONNX_PACKAGES if not is_installed(name)]
    if missing:
        raise ToolUnavailable(
            f"export: ONNX needs {', '.join(missing)}, which is not installed: pip install 'layered-lr[export]'. "
            "Without, export a .pt2, a .pth or a .safetensors."
        )


def _open_onnx(content: bytes) -> Callable[[Array], Array]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has errors of its own for each kind of fault
        raise Unsupported(f"export: onnxruntime does not take the model: {describe_error(error)}") from None
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def _compare(
    trained: Trained,
    opened: Answerer,
    run: Callable[[Array], Array],
    normalises: bool,
    model: str | Callable[[], Any] | None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Compare the answers of what was exported with those of both frameworks, on random images.

    Raises:
        Unsupported: They differ by more than rounding.
    """
    given, images = _draw_images(opened, normalises)
    found = [_answer_of(run, batch) for batch in given]
    differences, unchecked = {"torch-eager": _difference(found, opened, images)}, {}
    loop = FRAMEWORKS["oneflow"].loop
    if not is_installed(TABLE[loop].framework):
        unchecked[loop] = "oneflow is not installed"
    else:
        try:
            other = open_model(trained, loop, opened.which, model, "cpu")
            differences[loop] = _difference(found, other, images)
        except (BackendUnavailable, Unsupported, SpecError) as error:
            unchecked[loop] = str(error)
            say(f"export: not compared with {loop}: {error}")
    for name, far in differences.items():
        if not far <= _CLOSE:
            raise Unsupported(
                f"export: what was exported answers otherwise than {name}, by {far:.1e} of the largest number. Nothing "
                "is written. Export its weights instead: a .safetensors or a .pth."
            )
    return differences, unchecked


def _answer_of(run: Callable[[Array], Array], images: Array) -> Array:
    try:
        found = run(images)
    except Exception as error:  # of onnxruntime or torch
        raise Unsupported(
            f"export: what was exported does not take a batch of {len(images)}: {describe_error(error)} Nothing is "
            "written. Export its weights instead: a .safetensors or a .pth."
        ) from None
    if len(found) != len(images):
        raise Unsupported(
            f"export: what was exported answers {len(images)} images with {len(found)} rows. Nothing is written. "
            "Export its weights instead: a .safetensors or a .pth."
        )
    return found


def _draw_images(opened: Answerer, normalises: bool) -> tuple[list[Array], list[Array]]:
    """Random images as the exported model takes them, and as a framework's model does."""
    rng = np.random.default_rng(0)
    channels, height, width = opened.takes.image_shape
    normalisation = want_images(opened.takes).normalisation
    given: list[Array] = []
    images: list[Array] = []
    for count in _BATCHES:
        if normalises and normalisation is not None:
            pixels = rng.integers(0, 256, (count, height, width, channels), np.uint8)
            given.append(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
            images.append(normalise(pixels, normalisation_table(*normalisation)))
        else:
            given.append(rng.standard_normal((count, channels, height, width), np.float32))
            images.append(given[-1])
    return given, images


def _difference(found: list[Array], opened: Answerer, images: list[Array]) -> float:
    """The largest difference, relative to the largest number of an answer."""
    ours, theirs = (np.concatenate(each).astype(np.float64) for each in (found, list(map(opened.answer, images))))
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))
