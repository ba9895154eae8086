"""The one table of backends, by name: what each needs, whether it works here, and how to get at it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

from layered_lr.errors import SpecError
from layered_lr.validation import nearest


class Framework(NamedTuple):
    """A package that backends stand on.

    Args:
        packages: What is reported of its versions.
        needs: Its release and where that has wheels, in words.
        newest_python: The newest Python that has wheels, where there is such a limit.
        loop: The backend whose optimizer and scheduler serve a user's own loop.
        probes: The module of the models whose gradients are known: ``layered_lr.parity``.
    """

    packages: tuple[str, ...]
    needs: str
    newest_python: tuple[int, int] | None
    loop: str
    probes: str


class Entry(NamedTuple):
    """Where a backend lives, as import strings: nothing is imported before it is asked for.

    Args:
        framework: A key of ``FRAMEWORKS``.
        implementation: The ``Backend`` class.
        lowering: The function that says how it applies a plan's rates, given all phases; imports no framework.
        phases: The function that says what a plan's phases cost, likewise; None where there is nothing to say.
    """

    framework: str
    implementation: str
    lowering: str
    phases: str | None = None


FRAMEWORKS: Mapping[str, Framework] = {
    "torch": Framework(("torch", "torchvision"), "torch 2.4 or later", None, "torch-eager", "layered_lr_torch.probe"),
    "oneflow": Framework(
        ("oneflow", "flowvision"),
        "oneflow 0.9, which has wheels for Python 3.7 to 3.10 on Linux x86-64",
        (3, 10),
        "oneflow-eager",
        "layered_lr_oneflow.probe",
    ),
}

TABLE: Mapping[str, Entry] = {
    "torch-eager": Entry("torch", "layered_lr_torch.eager:TorchEager", "layered_lr_torch.lowering:lower"),
    "torch-compile": Entry("torch", "layered_lr_torch.compiled:TorchCompile", "layered_lr_torch.lowering:lower"),
    "oneflow-eager": Entry(
        "oneflow", "layered_lr_oneflow.eager:OneFlowEager", "layered_lr_oneflow.lowering:lower_eager"
    ),
    "oneflow-graph": Entry(
        "oneflow",
        "layered_lr_oneflow.graph:OneFlowGraph",
        "layered_lr_oneflow.lowering:lower_graph",
        "layered_lr_oneflow.lowering:describe_phases",
    ),
}

ATTACH = "layered_lr_oneflow.attach:attach"
CHECKPOINT_READER = "layered_lr_torch.pth_files:read_checkpoint"
STATE_DICT_READER = "layered_lr_torch.pth_files:read_state_dict"


def check_name(name: Any) -> Entry:
    """The table's entry of a backend.

    Raises:
        SpecError: No backend has that name.
    """
    if not isinstance(name, str) or name not in TABLE:
        hint = nearest(name, TABLE) if isinstance(name, str) else ""
        raise SpecError(f"backend={name!r}: must be one of {', '.join(TABLE)}.{hint}")
    return TABLE[name]


def probes_of(backend: str) -> Any:
    """The module with ``Probe`` and ``Answers`` of a backend's framework, which is loaded already."""
    return importlib.import_module(FRAMEWORKS[TABLE[backend].framework].probes)


def checkpoint_reader() -> Any:
    """The function that reads whatever tensors torch saved.

    Raises:
        ImportError: torch cannot be imported.
    """
    return load_attribute(CHECKPOINT_READER)


def state_dict_reader() -> Any:
    """The function that reads torch's own files of weights.

    Raises:
        ImportError: torch cannot be imported.
    """
    return load_attribute(STATE_DICT_READER)


def versions(framework: str) -> dict[str, str | None]:
    """The installed versions of a framework's packages."""
    return {package: _version(package) for package in FRAMEWORKS[framework].packages}


def load_attribute(path: str) -> Any:
    """What an import string ``"module:name"`` stands for; imports the module."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
