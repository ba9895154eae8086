"""Importing a backend when it is needed, with a clear error if that fails."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

from layered_lr.backend.base import Backend, LoopScheduler
from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.plans.plan import Plan
from layered_lr.registry import ATTACH, FRAMEWORKS, TABLE, Entry, check_name, load_attribute
from layered_lr.tools import is_installed


def load_backend(name: str, device: str = "auto") -> Backend:
    """Import a backend and open it on a device.

    Raises:
        SpecError: No backend has that name, or the device is not available.
        BackendUnavailable: Its framework is not installed or cannot be imported. The message says what to do.
    """
    entry = check_name(name)
    try:
        if not is_installed(entry.framework):  # a folder of that name would be imported as an empty package
            raise ModuleNotFoundError(entry.framework)
        implementation: type[Backend] = load_attribute(entry.implementation)
    except ImportError as error:
        raise BackendUnavailable(name, *_explain_failure(entry, error)) from None
    return implementation(device)


def backend_of(model: object) -> Backend:
    """Return the eager backend of a model's framework.

    Raises:
        SpecError: Not an ``nn.Module`` object of either framework.
    """
    framework = framework_of(model)
    if framework is None:
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        hint = f" Give an object of it, {model.__name__}(...)." if isinstance(model, type) else ""
        raise SpecError(f"model: got {what}; must be an nn.Module object of torch or OneFlow.{hint}")
    return load_backend(FRAMEWORKS[framework].loop)


def load_attach() -> Callable[[Plan, Module, Module, int], LoopScheduler]:
    """Import the function behind ``layered_lr.attach``; it takes a plan, a graph, a model, and the updates made so far.

    Raises:
        BackendUnavailable: OneFlow is not installed or cannot be imported.
    """
    load_backend("oneflow-graph")
    attach: Callable[[Plan, Module, Module, int], LoopScheduler] = load_attribute(ATTACH)
    return attach


def _suggest_other(entry: Entry) -> str:
    return ", or use backend " + repr(next(name for name, e in TABLE.items() if e.framework != entry.framework)) + "."


def explain_reinstall(entry: Entry) -> str:
    """Say how to repair the installation of a backend."""
    extra = f"'layered-lr[{entry.framework}]'"
    return f"Install it again: pip install --force-reinstall {extra}{_suggest_other(entry)}"


def _explain_failure(entry: Entry, failure: ImportError) -> tuple[str, str]:
    """Say why a backend cannot be imported here, and what to do about it."""
    framework = FRAMEWORKS[entry.framework]
    if framework.newest_python and sys.version_info[:2] > framework.newest_python:
        here = f"this is Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"needs {framework.needs}; {here}", f"Use a Python 3.10 environment (make setup){_suggest_other(entry)}"
    if not is_installed(entry.framework):
        reason = f"needs {framework.needs}, and {entry.framework} is not installed"
        return reason, f"Install it: pip install 'layered-lr[{entry.framework}]'{_suggest_other(entry)}"
    return f"needs {framework.needs}; importing it failed: {failure}", explain_reinstall(entry)
