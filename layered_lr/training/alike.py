"""What several processes must have in common to train one run, and whether they have it."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from layered_lr.backend.processes import Processes
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.models.nn_modules import framework_of, list_modules
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import metric_functions
from layered_lr.printed import shown
from layered_lr.schedules.reference import Reference
from layered_lr.strict_json import json_text
from layered_lr.training.code_digest import digest_code, without_addresses
from layered_lr.training.in_file import names_code
from layered_lr.training.options import RunOptions

if TYPE_CHECKING:
    from layered_lr.training.prepare import Prepared

_OWN: Final = ("save", "checkpoints", "progress", "log", "data_root", "device")
"""Options that may differ between the processes: where they write, read, show and compute."""
_SAMPLED_STEPS: Final = 64
_BLOCK_STEPS: Final = 65_536  # whose rates are held at once


def facts_alike(ready: Prepared, options: RunOptions) -> dict[str, Any]:
    """What must be the same in all processes beside their versions: words and tables by name.

    Args:
        ready: From ``prepare``.
        options: Of the run.

    Raises:
        SpecError: Something in the spec has no name by which processes could compare it.
    """
    said = {name: value for name, value in options.to_dict().items() if name not in _OWN}
    framework = framework_of(ready.model) or ""
    imported = getattr(sys.modules.get(framework), "__version__", "not imported")  # not what the packages' list says
    return {
        "framework": f"{framework} {imported}",
        "plan": _plan_words(ready.plan),
        "option": said,
        "data digest": ready.dataset.digest(),
        "input": ready.model_input.to_dict(),
        "model": _model_words(ready.model),
        "file of weights": ready.weights_digest,
        "code": _code_words(options, ready.plan),
        "list of callbacks": _callback_words(options),
        "schedule": _rate_words(ready.plan),
    }


def _plan_words(plan: Plan) -> dict[str, Any]:
    """A plan as a table, in which a function is its import path."""
    try:
        return plan.to_dict()
    except SpecError as error:
        raise SpecError(
            f"several processes compare their specs as tables, in which a function is its import path: {error}"
        ) from None


def _model_words(model: Any) -> dict[str, Any]:
    """Each module's class and settings, and the shape and dtype of what its state holds."""
    found: dict[str, Any] = {}
    for prefix, module in list_modules(model):
        settings = ""
        with contextlib.suppress(Exception):  # a module of the user's may raise anything
            settings = without_addresses(str(module.extra_repr()))
        name = prefix.removesuffix(".") or "as a whole"
        found[name] = f"{type(module).__name__}({settings}) {digest_code(type(module), False)}"
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = f"{buffer.dtype} {tuple(buffer.shape)}"
    return found


def _code_words(options: RunOptions, plan: Plan) -> dict[str, str]:
    """A digest of each function that was given; a model's may know its process's GPU, so that values do not count."""
    given: dict[str, Any] = {
        "loss": getattr(options.loss, "function", None),
        "augment": options.augment,
        **{f"metric {name}": metric for name, metric in dict(options.metrics).items()},
    }
    for group, function in metric_functions(plan).items():
        with contextlib.suppress(LayeredLRError):  # the epoch at which it is called says what is wrong
            given[f"metric of group {group}"] = function.load() if isinstance(function, Reference) else function
    found = {name: digest_code(value) for name, value in given.items() if callable(value)}
    if callable(options.model) and not hasattr(options.model, "named_parameters"):
        found["model"] = digest_code(options.model, with_values=False)
    return found


def _callback_words(options: RunOptions) -> dict[str, str]:
    """The callbacks that each process is to have: those that do more than write."""
    heard = [each for each in options.callbacks if not each.writes]
    return {
        f"number {number}": f"{type(each).__name__} {digest_code(type(each), False)}"
        for number, each in enumerate(heard, 1)
    }


def _rate_words(plan: Plan) -> dict[str, str]:
    """Some of each group's rates, and a digest of all where functions decide them: two of one name may give others."""
    steps = plan.total_steps or 1
    rows = plan.at(np.unique(np.linspace(0, max(steps - 1, 0), _SAMPLED_STEPS).astype(np.int64)))
    words = {group.name: repr(rows[:, column].tolist()) for column, group in enumerate(plan.groups)}
    if names_code({}, plan.spec.to_dict()):
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, steps, _BLOCK_STEPS):
            digest.update(plan.table(start, min(start + _BLOCK_STEPS, steps)).tobytes())
        words["of all updates"] = digest.hexdigest()
    return words


def check_alike(processes: Processes, facts: Mapping[str, Any]) -> None:
    """Refuse processes that would not train the same run.

    Args:
        processes: Of the run.
        facts: What must be the same in all of them: words by name.

    Raises:
        SpecError: A process has another recipe, plan, version or data; it is named.
    """
    if not processes.are_many:
        return
    text = json_text(facts, sort_keys=True, default=str)
    digests = processes.gather(hashlib.blake2b(text.encode(), digest_size=16).digest())
    if len(set(digests)) == 1:
        return  # of thousands of processes each would else take all facts of all
    found = processes.gather(dict(facts))

    def compare() -> None:
        for rank, theirs in enumerate(found):
            for name, value in found[0].items():
                if theirs.get(name) != value:
                    raise SpecError(
                        f"process {rank} of {len(found)} has another {name} than process 0: "
                        f"{_difference(value, theirs.get(name))}. Start all with the same command, versions and data."
                    )

    processes.agree_first(compare)


def _difference(one: Any, other: Any) -> str:
    """The first entry in which two tables or lists differ, or both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
        return f"{name} {_difference(one.get(name), other.get(name))}"
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return _difference(*next(pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]))
    own, theirs = ("nothing" if value is None else shown(value) for value in (one, other))  # a default is not written
    return f"{theirs} and not {own}"
