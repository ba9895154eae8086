"""A comparison from the outside in: what was asked for, the processes, what they found."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from layered_lr.counts import whole_number
from layered_lr.data import dataset_facts
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.models import catalogue
from layered_lr.models.catalogue import check_images
from layered_lr.models.nn_modules import framework_of
from layered_lr.parity.comparison import Comparison, compared
from layered_lr.parity.envelope import Envelope
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.processes import run_worker
from layered_lr.parity.task import Task
from layered_lr.parity.trace import Trace
from layered_lr.parity.worker import Request
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.registry import FRAMEWORKS, TABLE, check_name
from layered_lr.spec.spec import Spec
from layered_lr.training.options import RunOptions, options_with_meaning

_MOST_LOG_BYTES = 1 << 34


def compare_backends(
    spec: Spec,
    backends: Any,
    model: Any,
    options: RunOptions,
    steps: int,
    samples: int,
) -> Comparison:
    """See ``layered_lr.compare``; ``options`` are those of every run, its model and backend left out."""
    names = _names(backends)
    steps, samples = whole_number("steps", steps, 1), whole_number("samples", samples, 2)
    facts = dataset_facts(options.data, options.data_root)
    in_epoch = options.steps_per_epoch(facts.train_size)
    if options.epochs is None and options.max_steps is None:
        options = replace(options, max_steps=steps)
    total = options.total_steps(in_epoch)
    steps = min(steps, total)
    chosen = {name: replace(options, backend=name, model=_model_of(model, name)) for name in names}
    for each in chosen.values():
        if isinstance(each.model, str):
            check_images(each.model, each.batch_size, facts.image_shape)
            resolve(spec, catalogue.list_parameters(each.model, facts.num_classes), total, in_epoch)
    with tempfile.TemporaryDirectory(prefix="layered_lr-") as folder:
        room = min(_MOST_LOG_BYTES, shutil.disk_usage(folder).free // 2) // (len(names) + 1)
        tasks = {name: Task(spec, each, steps, room) for name, each in chosen.items()}
        return _compared(tasks, Path(folder), samples, (total, in_epoch))


def _names(backends: Any) -> list[str]:
    """The backends to compare, checked.

    Raises:
        SpecError: Not a list of two or more different backends.
    """
    names = [name.strip() for name in backends.split(",")] if isinstance(backends, str) else backends
    if not isinstance(names, Sequence):
        raise SpecError(f"backends={backends!r}: must be a list of names, such as {', '.join(TABLE)}.")
    for name in names:
        check_name(name)
    if len(set(names)) < len(names):
        raise SpecError(f"backends={', '.join(names)}: each may stand once; to compare is to compare different ones.")
    if len(names) < 2:
        raise SpecError(
            f"backends={', '.join(names) or '()'}: must be two or more, the first of which is the reference, of "
            f"{', '.join(TABLE)}."
        )
    return list(names)


def _model_of(model: Any, backend: str) -> Any:
    """The model for a backend: one for all of them, or one by backend or framework."""
    if isinstance(model, str) and "=" in model:
        model = dict(part.strip().partition("=")[::2] for part in model.split(","))
    if not isinstance(model, Mapping) or framework_of(model):
        return model
    framework = TABLE[backend].framework
    known = [*TABLE, *FRAMEWORKS]
    if odd := [key for key in model if key not in known]:
        raise SpecError(f"model: {odd[0]!r} is neither a backend nor a framework; known are {', '.join(known)}.")
    if backend not in model and framework not in model:
        raise SpecError(f"model: none is given for {backend!r}; say model={{..., {framework!r}: ...}}.")
    return model.get(backend, model.get(framework))


def _compared(tasks: Mapping[str, Task], folder: Path, samples: int, lengths: tuple[int, int]) -> Comparison:
    reference, task = next(iter(tasks.items()))
    outcomes: dict[str, Outcome] = {}
    traces: dict[str, Trace] = {}

    def request(role: Any, name: str, loss_bits: float = 1.0) -> Request:
        return Request(role, name, tasks[name], folder / name, folder / "start.npz", samples, loss_bits, -1)

    for name in tasks:
        outcomes[name] = _with_progress(request("record", name), name, tasks[name])
        if outcomes[name].status == "ran":
            traces[name] = Trace.load(folder / name)
        elif name == reference:
            raise outcomes[name].error or LayeredLRError(f"compare: the reference, {outcomes[name]}")
    plan = _plan(folder / reference / "parameters.json", task, lengths)
    worst = max(trace.loss_bits for trace in traces.values())
    measured = _with_progress(request("envelope", reference, worst), "what rounding does", task, samples + 1)
    if measured.status != "ran":
        raise measured.error or LayeredLRError(f"compare: while the envelope was measured, {measured}")
    envelope = Envelope.load(folder / reference / "envelope.npz")
    compared_options = set(options_with_meaning("compare")) - {"progress"}
    options = {key: value for key, value in task.options.to_dict().items() if key in compared_options}
    return compared(traces, outcomes, envelope, plan, task.steps, options)


def _with_progress(request: Request, what: str, task: Task, runs: int = 1) -> Outcome:
    total = runs * task.steps * (1 + task.rungs)
    bar = tqdm(total=total, desc=what, unit="update", disable=None if task.options.progress else True, leave=False)
    with bar:
        return run_worker(request, bar.update)


def _plan(parameters: Path, task: Task, lengths: tuple[int, int]) -> Plan:
    return resolve(task.spec, json.loads(parameters.read_text()), *lengths)
