"""The one table of backends, by name: what each needs, whether it works here, and how to get at it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from layered_lr.backend.base import Backend
from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.nn_modules import framework_of
from layered_lr.plans.lowering import Lowering
from layered_lr.plans.plan import Plan
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
    "oneflow-eager": Entry("oneflow", "layered_lr_oneflow.eager:OneFlowEager", "layered_lr_oneflow.lowering:eager"),
    "oneflow-graph": Entry(
        "oneflow",
        "layered_lr_oneflow.graph:OneFlowGraph",
        "layered_lr_oneflow.lowering:graph",
        "layered_lr_oneflow.lowering:phases_in_graphs",
    ),
}

ATTACH = "layered_lr_oneflow.attach:attach"
CHECKPOINT_READER = "layered_lr_torch.pth_files:read_checkpoint"
STATE_DICT_READER = "layered_lr_torch.pth_files:read_state_dict"


class BackendStatus(NamedTuple):
    """Whether a backend works on this machine.

    Args:
        name: One of the four names.
        available: It was imported successfully, in a process of its own.
        versions: Of the packages it stands on, None for one that is not installed.
        reason: Why it does not work; empty where it does.
        mend: What to do about it; empty where it works.
    """

    name: str
    available: bool
    versions: dict[str, str | None]
    reason: str = ""
    mend: str = ""


def check_name(name: Any) -> Entry:
    """The table's entry of a backend.

    Raises:
        SpecError: No backend has that name.
    """
    if not isinstance(name, str) or name not in TABLE:
        hint = nearest(name, TABLE) if isinstance(name, str) else ""
        raise SpecError(f"backend={name!r}: must be one of {', '.join(TABLE)}.{hint}")
    return TABLE[name]


def load_backend(name: str, device: str = "auto") -> Backend:
    """Import a backend and open it on a device.

    Raises:
        SpecError: No backend has that name, or the device is not there.
        BackendUnavailable: Its framework is not installed, or cannot be imported; the message says the mend.
    """
    entry = check_name(name)
    try:
        implementation: type[Backend] = _imported(entry.implementation)
    except ImportError as error:
        raise BackendUnavailable(name, *_why_not(entry, error)) from None
    return implementation(device)


def backend_of(model: Any) -> Backend:
    """The eager backend of a model's framework.

    Raises:
        SpecError: Not an ``nn.Module`` object of either framework.
    """
    framework = framework_of(model)
    if framework is None:
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise SpecError(f"model: got {what}; must be an nn.Module object of torch or OneFlow.")
    return load_backend(FRAMEWORKS[framework].loop)


def attach_function() -> Any:
    """The function behind ``layered_lr.attach``."""
    load_backend("oneflow-graph")
    return _imported(ATTACH)


def probes_of(backend: str) -> Any:
    """The module with ``Probe`` and ``Answers`` of a backend's framework, which is loaded already."""
    return importlib.import_module(FRAMEWORKS[TABLE[backend].framework].probes)


def checkpoint_reader() -> Any:
    """The function that reads whatever tensors torch saved.

    Raises:
        ImportError: torch cannot be imported.
    """
    return _imported(CHECKPOINT_READER)


def state_dict_reader() -> Any:
    """The function that reads torch's own files of weights.

    Raises:
        ImportError: torch cannot be imported.
    """
    return _imported(STATE_DICT_READER)


def lowering_of(plan: Plan, backend: str, timeline: Sequence[Plan] = ()) -> tuple[Lowering, ...]:
    """How a backend will apply each group's rate, in the order of ``plan.groups``; needs no framework.

    Args:
        plan: Of the whole run, or of one of its phases.
        backend: Its name.
        timeline: The plans of all phases, where it is of one of them.

    Raises:
        SpecError: No backend has that name.
        Unsupported: The backend cannot apply this plan exactly.
    """
    lower = _imported(check_name(backend).lowering)
    return tuple(lower(plan, timeline))


def cost_of_phases(plan: Plan, backend: str) -> str:
    """What a plan's phases cost on a backend, in words; empty where there is nothing to say."""
    path = check_name(backend).phases
    return _imported(path)(plan) if path is not None and plan.segments else ""


def backends() -> dict[str, BackendStatus]:
    """Which of the four backends work on this machine.

    Each is really loaded, in a process of its own (some seconds), because a broken installation can look whole
    from outside and can end the process that imports it.
    """
    probes = {
        name: subprocess.Popen(
            [sys.executable, "-c", _PROBE, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in TABLE
    }
    return {name: _status(name, probe) for name, probe in probes.items()}


# What a probe runs: silent where the backend works, its reason and mend as JSON where it says so itself.
_PROBE = """
import json, sys
from layered_lr.errors import BackendUnavailable
from layered_lr.registry import load_backend
try:
    load_backend(sys.argv[1])
except BackendUnavailable as error:
    print(json.dumps([error.reason, error.mend]))
"""


def _status(name: str, probe: subprocess.Popen[str]) -> BackendStatus:
    entry = TABLE[name]
    found = versions(entry.framework)
    said, last_words = probe.communicate()
    if probe.returncode != 0:  # it did not even come to say why
        words = (last_words.strip().splitlines() or ["it said nothing"])[-1]
        reason = f"cannot be loaded: the process that tried ended with exit code {probe.returncode}: {words}"
        return BackendStatus(name, False, found, reason, _reinstall(entry))
    if said.strip():
        return BackendStatus(name, False, found, *json.loads(said.strip().splitlines()[-1]))
    return BackendStatus(name, True, found)


def versions(framework: str) -> dict[str, str | None]:
    """The installed versions of a framework's packages."""
    return {package: _version(package) for package in FRAMEWORKS[framework].packages}


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _alternative(entry: Entry) -> str:
    return ", or use backend " + repr(next(name for name, e in TABLE.items() if e.framework != entry.framework)) + "."


def _reinstall(entry: Entry) -> str:
    extra = f"'layered-lr[{entry.framework}]'"
    return f"Install it anew: pip install --force-reinstall {extra}{_alternative(entry)}"


def _why_not(entry: Entry, failure: ImportError) -> tuple[str, str]:
    """Why a backend cannot be imported here, and what to do about it."""
    framework = FRAMEWORKS[entry.framework]
    if framework.newest_python and sys.version_info[:2] > framework.newest_python:
        here = f"this is Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"needs {framework.needs}; {here}", f"Use a Python 3.10 environment (make setup){_alternative(entry)}"
    if importlib.util.find_spec(entry.framework) is None:
        reason = f"needs {framework.needs}, and {entry.framework} is not installed"
        return reason, f"Install it: pip install 'layered-lr[{entry.framework}]'{_alternative(entry)}"
    return f"needs {framework.needs}; importing it failed: {failure}", _reinstall(entry)
