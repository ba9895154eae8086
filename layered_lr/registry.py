"""The table of backends, by name: what each needs, and where its code is. No other file of the core names a backend."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.spelling import did_you_mean


class Framework(NamedTuple):
    """A framework that backends use.

    Args:
        packages: The packages whose versions are reported.
        needs: The release that is needed and where it has wheels, in words.
        newest_python: The newest Python with wheels; None if there is no such limit.
        loop: The backend that makes optimizers and schedulers for a user's own training loop.
        probes: The module with the probe models of ``layered_lr.parity``, whose gradients are known.
        tracer: The module that traces models of this framework into ``layered_lr.models.graph``; None if there is none.
        builder: The function that builds a module of this framework from such a graph; None if there is none.
        looker: The module that sees which layers of a model are used, and which answer.
        zoo: The module that makes models of libraries of this framework by name; None if there is none.
        auditor: The function behind ``layered_lr.audit``; None if there is none.
        adopter: The function behind ``layered_lr.adopt``; None if there is none.
        exporter: The module that writes models of this framework to files.
    """

    packages: tuple[str, ...]
    needs: str
    newest_python: tuple[int, int] | None
    loop: str
    probes: str
    looker: str
    tracer: str | None = None
    builder: str | None = None
    zoo: str | None = None
    auditor: str | None = None
    adopter: str | None = None
    exporter: str = ""


class Entry(NamedTuple):
    """Where the code of a backend is, as import strings, so that nothing is imported before it is needed.

    Args:
        framework: A key of ``FRAMEWORKS``.
        implementation: The ``Backend`` class.
        lowering: The function that says how the backend applies a plan's rates; it imports no framework.
        phases: The function that says what a plan's phases cost, which imports no framework either; None if phases
            cost nothing special.
    """

    framework: str
    implementation: str
    lowering: str
    phases: str | None = None


FRAMEWORKS: Mapping[str, Framework] = {
    "torch": Framework(
        ("torch", "torchvision"),
        "torch 2.4 or later",
        None,
        "torch-eager",
        "layered_lr_torch.probe",
        "layered_lr_torch.unused_layers",
        tracer="layered_lr_torch.trace_model",
        zoo="layered_lr_torch.zoo",
        auditor="layered_lr_torch.audit.audit:audit_recipe",
        adopter="layered_lr_torch.adopt.adopt:adopt_recipe",
        exporter="layered_lr_torch.export",
    ),
    "oneflow": Framework(
        ("oneflow", "flowvision"),
        "oneflow 0.9, which has wheels for Python 3.7 to 3.10 on Linux x86-64",
        (3, 10),
        "oneflow-eager",
        "layered_lr_oneflow.probe",
        "layered_lr_oneflow.unused_layers",
        builder="layered_lr_oneflow.build_model:build_translated",
        exporter="layered_lr_oneflow.export",
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

ATTACH = "layered_lr_oneflow.graph_phases:attach_plan"
CHECKPOINT_READER = "layered_lr_torch.pth_files:read_checkpoint"
STATE_DICT_READER = "layered_lr_torch.pth_files:read_state_dict"


def check_name(name: object) -> Entry:
    """Return a backend's entry in the table.

    Raises:
        SpecError: No backend has that name.
    """
    if not isinstance(name, str) or name not in TABLE:
        hint = did_you_mean(name, TABLE) if isinstance(name, str) else ""
        raise SpecError(f"backend={shown(name)}: must be one of {', '.join(TABLE)}.{hint}")
    return TABLE[name]


def load_probes(backend: str) -> Any:
    """Import the module with ``Probe`` and ``Answers`` for a backend; its framework is already imported."""
    return importlib.import_module(FRAMEWORKS[TABLE[backend].framework].probes)


def load_tracer(framework: str) -> Any:
    """Import the module that traces models of a framework, which is already imported.

    It has ``trace_model(model, example)`` and ``prepare_traced(made, dtype)``.
    """
    path = FRAMEWORKS[framework].tracer
    if path is None:
        raise SpecError(f"model: models of {framework} cannot be translated; give a torch.nn.Module.")
    return importlib.import_module(path)


def load_looker(framework: str) -> Any:
    """Import the module with ``check_use`` and ``find_answering`` for models of a framework, which is imported."""
    return importlib.import_module(FRAMEWORKS[framework].looker)


def load_zoo(framework: str) -> Any:
    """Import the module that makes models of a framework by name, such as ``ZooModel`` and ``list_names``."""
    return importlib.import_module(str(FRAMEWORKS[framework].zoo))


def load_exporter(framework: str) -> Any:
    """Import the module that writes models of a framework to files; the framework is installed."""
    return importlib.import_module(FRAMEWORKS[framework].exporter)


def load_checkpoint_reader() -> Callable[[Path], object]:
    """Import the function that reads any file of tensors that torch has saved.

    Raises:
        ImportError: torch cannot be imported.
    """
    read: Callable[[Path], object] = load_attribute(CHECKPOINT_READER)
    return read


def load_state_dict_reader() -> Callable[[Path], Mapping[str, object]]:
    """Import the function that reads a file of weights that torch has saved.

    Raises:
        ImportError: torch cannot be imported.
    """
    read: Callable[[Path], Mapping[str, object]] = load_attribute(STATE_DICT_READER)
    return read


def find_versions(framework: str) -> dict[str, str | None]:
    """Return the installed versions of a framework's packages; None for a package that is not installed."""
    return {package: _find_version(package) for package in FRAMEWORKS[framework].packages}


def load_attribute(path: str) -> Any:
    """Import what an import string ``"module:name"`` names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
