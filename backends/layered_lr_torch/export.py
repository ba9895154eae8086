"""Writes trained torch models as ONNX, as an exported program, and as a plain ``state_dict``."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch

from layered_lr.arrays import Array, Arrays, Float32
from layered_lr.errors import Unsupported
from layered_lr.files import describe_error
from layered_lr_torch import models
from layered_lr_torch.torch_types import Module, Tensor

_OLDEST_FOR_ONNX = (2, 6)  # whose torch.onnx.export returns the model, and takes dynamic shapes
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXAMPLE_IMAGES = 2  # torch.export takes a batch of 1 for a fixed size


class WithNormalisation(torch.nn.Module):
    """A model that takes pixels: it normalises them first, as the run did.

    Args:
        model: That takes normalised images.
        mean: Of each channel of pixels / 255.
        std: Standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Module, mean: Float32, std: Float32) -> None:
        super().__init__()
        self.model = model
        dtype = models.find_dtype(model)
        for name, numbers in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.from_numpy(numbers.copy()).to(dtype).reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits of uint8 images of shape (N, C, H, W)."""
        logits: Tensor = self.model((pixels.to(self.mean.dtype) / 255 - self.mean) / self.std)
        return logits


def widen(model: Module) -> None:
    """Make every floating tensor of a model float32, which every runtime of ONNX computes with."""
    model.float()


def make_onnx(
    model: Module,
    shape: tuple[int, int, int],
    normalisation: tuple[Float32, Float32] | None,
    about: Mapping[str, Any],
    answers: str = "logits",
) -> bytes:
    """Make an ONNX model: input ``images``, one output, any number of images.

    Args:
        model: In evaluation mode, float32, on the CPU.
        shape: (channels, height, width) of the images.
        normalisation: Mean and standard deviation to put in front of the model, which then takes uint8 pixels.
        about: What the file says of itself (its ``metadata_props``), as texts or plain tables.
        answers: What the output is called.

    Raises:
        Unsupported: torch cannot export this model, or is too old.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST_FOR_ONNX:
        raise Unsupported(f"export: ONNX needs torch 2.6 or later; this is torch {torch.__version__}.")
    wrapped, example, dynamic = _prepare(model, shape, normalisation)
    with _explained("ONNX"):
        traced = torch.export.export(wrapped, (example,), dynamic_shapes=(dynamic,))
        program = torch.onnx.export(traced, dynamo=True, input_names=["images"], output_names=[answers], verbose=False)
        assert program is not None  # torch's types allow None, for its older exporter
        proto = program.model_proto
        _strip(proto)
        for name, value in about.items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
        content: bytes = proto.SerializeToString()
    return content


def _strip(proto: Any) -> None:
    """Remove what torch notes of each node: names and lines of the files of whoever exported it."""
    for graph in (proto.graph, *proto.functions):
        for part in (*graph.node, *graph.value_info, *getattr(graph, "input", ()), *getattr(graph, "output", ())):
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]


def make_program(
    model: Module, shape: tuple[int, int, int], normalisation: tuple[Float32, Float32] | None, about: Mapping[str, Any]
) -> bytes:
    """Make a file of ``torch.export``, for any number of images; the arguments are the first ones of ``make_onnx``.

    Raises:
        Unsupported: torch cannot export this model.
    """
    wrapped, example, dynamic = _prepare(model, shape, normalisation)
    with _explained("torch.export"):
        program = torch.export.export(wrapped, (example,), dynamic_shapes=(dynamic,))
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={"layered_lr.json": json.dumps(about)})
    return file.getvalue()


def open_program(content: bytes) -> Callable[[Array], Array]:
    """Read what ``make_program`` made; the function takes images and returns logits.

    Raises:
        Unsupported: torch does not read what it wrote: torch 2.4 for some models whose class is inside a function.
    """
    with _explained("torch.export"):
        program = torch.export.load(io.BytesIO(content))
        module, example = program.module(), program.example_inputs[0][0]

    def run(images: Array) -> Array:
        with torch.no_grad():
            return models.to_array(module(torch.from_numpy(images).to(example.dtype)).float())

    return run


def make_state_dict(arrays: Arrays) -> bytes:
    """Make a file that ``torch.load(path, weights_only=True)`` reads: tensors by name, for ``load_state_dict``."""
    file = io.BytesIO()
    torch.save({name: models.to_tensor(array) for name, array in arrays.items()}, file)
    return file.getvalue()


def _prepare(
    model: Module, shape: tuple[int, int, int], normalisation: tuple[Float32, Float32] | None
) -> tuple[Module, Tensor, dict[int, Any]]:
    """The module to export, an example, and which of its axes may have any size."""
    model.eval()
    images = np.zeros((_EXAMPLE_IMAGES, *shape), np.uint8 if normalisation is not None else np.float32)
    example = torch.from_numpy(images)
    if normalisation is None:
        return model, example.to(models.find_dtype(model)), {0: torch.export.Dim("batch")}
    return WithNormalisation(model, *normalisation).eval(), example, {0: torch.export.Dim("batch")}


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Keep torch's exporters quiet, and say in one line what they cannot do."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            log.setLevel(logging.ERROR)
            yield
    except Exception as error:  # torch raises many kinds of errors
        why = _COLOUR.sub("", describe_error(error))
        raise Unsupported(
            f"export: torch cannot make {what} of this model: {why} Export its weights instead: a .safetensors or a "
            ".pth."
        ) from None
    finally:
        log.setLevel(level)
