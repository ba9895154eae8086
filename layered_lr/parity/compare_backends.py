"""Compares backends: reads what was asked for, starts the processes, and collects what they found."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from layered_lr.counts import whole_number
from layered_lr.data import dataset_facts
from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.models.catalogue import check_images
from layered_lr.models.nn_modules import framework_of
from layered_lr.models.zoo import is_catalogued
from layered_lr.parity.comparison import Comparison, compared
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.processes import run_worker
from layered_lr.parity.recording import ABSENT, Recording
from layered_lr.parity.rounding import PROBE_SAMPLES, Rounding, usual_samples
from layered_lr.parity.task import Task
from layered_lr.parity.worker import MEASURING, ROUNDING, Request
from layered_lr.plans.resolve import resolve
from layered_lr.registry import FRAMEWORKS, TABLE, check_name
from layered_lr.spec.spec import Spec
from layered_lr.training.chosen_model import choose_model
from layered_lr.training.grouped_options import Precision
from layered_lr.training.many_processes import check_single_process
from layered_lr.training.options import RunOptions, options_with_meaning

_MOST_LOG_BYTES = 1 << 34
_QUICK_PART, _LEAST_QUICK_STEPS, _QUICK_PROBED = 5, 3, 2


def compare_backends(
    spec: Spec,
    backends: Any,
    model: Any,
    options: RunOptions,
    steps: int,
    samples: int | None,
    quick: bool,
    resume_at: int | None,
) -> Comparison:
    """See ``layered_lr.compare``; ``options`` are those of every run, its model and backend left out."""
    check_single_process()
    names = _names(backends)
    if options.precision.autocast == "float16":
        raise Unsupported(
            "compare: precision='float16' is not certified: which updates overflow, and are left out, may hang on the "
            "last bit of a gradient. Compare with 'bfloat16' or 'float32'."
        )
    steps = whole_number("steps", steps, 1)
    if samples is not None:
        samples = whole_number("samples", samples, 2)
    facts = dataset_facts(options.data, options.data_root, options.image_size)
    in_epoch = options.steps_per_epoch(facts.train_size)
    if options.epochs is None and options.max_steps is None:
        options = replace(options, max_steps=steps)
    total = options.total_steps(in_epoch)
    steps = probed = min(steps, total)
    if quick:
        options, steps = _in_float64(options), min(steps, max(_LEAST_QUICK_STEPS, -(-steps // _QUICK_PART)))
    _check_resume_at(resume_at, steps)
    chosen = {name: replace(options, backend=name, model=_model_of(model, name)) for name in names}
    for each in chosen.values():
        if is_catalogued(each.model):
            known = choose_model(each, facts, loads=False)
            check_images(each.model, each.batch_size, known.image_shape)
            resolve(spec, known.list_parameters() or (), total, in_epoch)
    with tempfile.TemporaryDirectory(prefix="layered_lr-") as folder:
        room = min(_MOST_LOG_BYTES, shutil.disk_usage(folder).free // 2) // (2 * len(names) + 1)
        constants = options.precision.dtype == "float64"
        tasks = {
            name: Task(
                spec,
                each,
                steps,
                log_bytes=room,
                resume_at=resume_at,
                probe_steps=probed,
                probed_of_each_kind=_QUICK_PROBED if quick else None,
                float32_norms=constants,
            )
            for name, each in chosen.items()
        }
        return _compared(tasks, Path(folder), samples, (total, in_epoch))


def _in_float64(options: RunOptions) -> RunOptions:
    if options.precision != Precision():
        raise SpecError(
            f"quick with precision={options.precision!r}: a quick comparison is in float64. Leave one of the two out."
        )
    return replace(options, precision=Precision("float64"))


def _check_resume_at(resume_at: int | None, steps: int) -> None:
    if resume_at is not None and not 1 <= whole_number("resume_at", resume_at, 1) < steps:
        raise SpecError(
            f"resume_at={resume_at}: must be 1 to {steps - 1}, an update before the last of the {steps} compared."
        )


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
            f"backends={', '.join(names) or '()'}: must be two or more of {', '.join(TABLE)}. The others are compared "
            "with the first one."
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


def _compared(tasks: Mapping[str, Task], folder: Path, samples: int | None, lengths: tuple[int, int]) -> Comparison:
    reference, task = next(iter(tasks.items()))
    outcomes: dict[str, Outcome] = {}
    recordings: dict[str, Recording] = {}

    def work(role: Literal["record", "reference", "rounding"], name: str, float64: bool) -> Outcome:
        asked = Request(role, name, tasks[name], folder / name, folder / "start.npz", float64, samples, -1)
        done = _with_progress(asked)
        if done.status != "ran" and (folder / name / MEASURING).exists():
            raise done.error or LayeredLRError(f"compare: while it was measured what rounding does, {done}")
        return done

    for name in tasks:
        is_reference = name == reference
        float64 = is_reference or recordings[reference].exact is not None
        outcome = work("reference" if is_reference else "record", name, float64)
        if outcome.status == "died" and (folder / name / ABSENT).exists():
            outcome = Outcome(name, "ran")  # its run is recorded; it has no float64
        outcomes[name] = outcome
        if outcome.status == "ran":
            recordings[name] = Recording.load(folder / name)
        elif is_reference:
            raise outcome.error or LayeredLRError(f"compare: the reference, {outcome}")
    measured = folder / reference / ROUNDING
    has_exact = [found.exact is not None for found in recordings.values()]
    if not measured.exists() or (has_exact[0] and not all(has_exact)):  # only float64 is measured, or nothing
        work("rounding", reference, float64=False)
    rounding = Rounding.load(measured)
    plan = resolve(task.spec, json.loads((folder / reference / "parameters.json").read_text()), *lengths)
    compared_options = set(options_with_meaning("compare")) - {"progress"}
    options = {key: value for key, value in task.options.to_dict().items() if key in compared_options}
    return compared(recordings, outcomes, rounding, plan, task.steps, options)


def _with_progress(request: Request) -> Outcome:
    task = request.task
    what, runs, probes = request.backend, 0, 0
    if request.role != "rounding":
        runs, probes = 2, 1
    if request.role != "record":
        what = "what rounding does" if request.role == "rounding" else f"{what} and what rounding does"
        runs, probes = runs + 1 + (request.samples or usual_samples(task)), probes + PROBE_SAMPLES
    total = runs * task.steps + probes * task.rungs * task.probed_steps
    hidden = None if task.options.progress else True
    with tqdm(total=total, desc=what, unit="update", disable=hidden, leave=False) as bar:
        return run_worker(request, bar.update)
