"""The public functions: run, resume, plan, compare, compile, attach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from layered_lr.backend.base import Dtype
from layered_lr.data import dataset_facts
from layered_lr.models import catalogue
from layered_lr.models.nn_modules import framework_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.spec.spec import Spec
from layered_lr.training.divergence import OnDivergence
from layered_lr.training.options import RunOptions
from layered_lr.training.recipe import default_spec
from layered_lr.training.result import Result
from layered_lr.training.train import train

if TYPE_CHECKING:
    from layered_lr.parity.comparison import Comparison


def run(
    spec: Spec | None = None,
    backend: str = "torch-eager",
    model: str | Callable[[], Any] = "mobilenet_v2",
    data: Any = "digits",
    *,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    dropout: float = 0.2,
    device: str = "auto",
    augment: bool | None = None,
    initial_weights: str | Path | Mapping[str, NDArray[Any]] | None = None,
    reset_weights: Sequence[str] = (),
    data_root: str | Path | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    dtype: Dtype = "float32",
    autocast: Literal["bfloat16"] | None = None,
    progress: bool = True,
    save: str | Path | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: str | int = "1 epoch",
    keep: int = 3,
    keep_best: bool = True,
    on_divergence: OnDivergence = "stop",
    rollback_factor: float = 0.5,
    skip_advances: bool = False,
) -> Result:
    """Train a model under a spec; the same weights, batches and rates on every backend.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``.
        backend: ``"torch-eager"``, ``"torch-compile"``, ``"oneflow-eager"`` or ``"oneflow-graph"``.
        model: ``"mobilenet_v2"``, with initial weights drawn in NumPy from the seed, or a callable without
            arguments that builds an ``nn.Module`` of the backend's framework, which starts as it is built.
        data: ``"digits"`` (embedded), ``"cifar10"``, the path of an ``.npz`` with x_train, y_train, x_test, y_test,
            these four as a mapping or tuple, or a ``Dataset``.
        epochs: Passes over the training set, each without the images that fill no batch; 6 where neither this nor
            ``max_steps`` is given.
        max_steps: Updates after which to stop, if ``epochs`` does not come first.
        batch_size: Images a batch.
        seed: Of initial weights, order of the batches, augmentation and dropout.
        dropout: Probability in the head of a model known by name, whose masks are the same on every backend.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        augment: Random crop (padding 4) and flip; None is as the data set says (cifar10: yes).
        initial_weights: Arrays by name, or the path of a ``.npz``, ``.safetensors`` or ``.pth``, instead of the
            model's own start.
        reset_weights: Patterns (as in ``Group.match``) of arrays that start anew although ``initial_weights`` is
            given, such as a new head.
        data_root: Folder of the CIFAR-10 files.
        accumulate_steps: Batches that make an update, by their mean gradient; the last one of an epoch may have
            fewer. Schedules, ``max_steps`` and everything else that says step count updates.
        ema_decay: Keep an exponential moving average of the weights, as torch's ``AveragedModel`` does, and evaluate
            it too; 0 to below 1, such as 0.999. None keeps none.
        dtype: ``"float32"`` or ``"float64"``, of weights and arithmetic.
        autocast: ``"bfloat16"`` runs the model, in training and evaluation, under ``torch.autocast``: its matrix
            products and convolutions in bfloat16; weights, loss and optimizer stay float32. On torch alone.
        progress: Show a progress bar where stderr is a terminal.
        save: File to write the result to, as ``Result.save`` does.
        checkpoint_dir: The run's folder: recipe, plan, versions, metrics and events as they come, checkpoints, report.
            Ctrl-C and SIGTERM then write a checkpoint and end the run, which ``resume`` goes on with; a second Ctrl-C
            ends it at once. Checkpoints fall between updates.
        checkpoint_every: ``"1 epoch"``, ``"100 steps"``, ``"30 seconds"``, ``"5 minutes"``, or a number of updates; one
            more comes at the start and one at the end.
        keep: How many of the newest checkpoints stay.
        keep_best: The one with the highest test accuracy stays too.
        on_divergence: What happens when a loss or a gradient is NaN or infinite: ``"stop"``; ``"skip"`` undoes the
            update, leaves its batch out and goes on, schedules standing still; ``"rollback"`` goes back to the last
            checkpoint (without ``checkpoint_dir``: to the start) at lower rates. ``"stop"`` alone costs nothing: the
            others wait for each update, and ``"skip"`` copies the state before it.
        rollback_factor: What each rollback multiplies all rates with, above 0 and below 1.
        skip_advances: Skipped updates count, and schedules advance over them.

    Returns:
        Losses, rates as applied, accuracies, weights, timings.

    Raises:
        SpecError: The spec or an argument cannot be right.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The backend does not work on this machine.
        Unsupported: The backend cannot apply the plan exactly.
        TrainingDiverged: The loss became NaN or infinite.
        CheckpointError: ``checkpoint_dir`` cannot be written to, holds a run already, or another run writes there.
    """
    options = RunOptions(
        backend=backend,
        model=model,
        data=data,
        data_root=data_root,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        seed=seed,
        dropout=dropout,
        device=device,
        augment=augment,
        initial_weights=initial_weights,
        reset_weights=reset_weights,
        accumulate_steps=accumulate_steps,
        ema_decay=ema_decay,
        dtype=dtype,
        autocast=autocast,
        progress=progress,
        save=save,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=checkpoint_every,
        keep=keep,
        keep_best=keep_best,
        on_divergence=on_divergence,
        rollback_factor=rollback_factor,
        skip_advances=skip_advances,
    )
    return train(default_spec() if spec is None else spec, options)


def resume(path: str | Path, spec: Spec | None = None, *, strict: bool = True, **changes: Any) -> Result:
    """Go on with a run that was stopped, from its newest good checkpoint; bitwise as if it had not been.

    A damaged checkpoint is named on stderr, and the one before it taken. What is not as it was (the plan, versions) is
    said there too.

    Args:
        path: The run's folder: what was ``checkpoint_dir``.
        spec: Instead of the run's, for what is left of it: other schedules, rates, phases.
        strict: Refuse a model whose parameters are not those of the run, other data or another optimizer; false takes
            over what fits, says what does not, and starts that anew.
        changes: Arguments of ``run`` instead of the run's: ``backend`` goes on with another framework, ``epochs`` or
            ``max_steps`` make the run longer. ``model`` and ``data`` are needed where they cannot be written down
            (a lambda, arrays). Not those that the position in the data depends on: ``batch_size``,
            ``accumulate_steps``, ``seed``, ``augment``.

    Returns:
        The result of the whole run, what was before the stop included.

    Raises:
        CheckpointError: No run, no good checkpoint, or one that does not fit; another process writes there.
        SpecError: An argument that cannot be changed or cannot be right.
    """
    from layered_lr.training.resume import resume_run

    return resume_run(path, spec, strict, changes)


def plan(
    spec: Spec | None = None,
    model: str | Callable[[], Any] = "mobilenet_v2",
    data: Any = "digits",
    *,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 64,
    data_root: str | Path | None = None,
    accumulate_steps: int = 1,
) -> Plan:
    """The plan that ``run`` would follow with the same arguments; needs no framework for a model known by name.

    Args:
        spec: As for ``run``.
        model: As for ``run``; an ``nn.Module`` object will do here too.
        data: As for ``run``; only its size and number of classes matter, and ``"cifar10"`` is not downloaded.
        epochs: As for ``run``.
        max_steps: As for ``run``.
        batch_size: As for ``run``.
        data_root: As for ``run``.
        accumulate_steps: As for ``run``.

    Raises:
        SpecError, DataError: As for ``run``.
    """
    spec = default_spec() if spec is None else spec
    made = model if framework_of(model) else None
    options = RunOptions(
        model=model if made is None else "mobilenet_v2",
        data=data,
        data_root=data_root,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        accumulate_steps=accumulate_steps,
    )
    facts = dataset_facts(options.data, options.data_root)
    in_epoch = options.steps_per_epoch(facts.train_size)
    parameters: Any = made
    if made is None:
        known = isinstance(options.model, str)
        parameters = catalogue.list_parameters(options.model, facts.num_classes) if known else options.model()
    return resolve(spec, parameters, options.total_steps(in_epoch), in_epoch)


def compare(
    spec: Spec | None = None,
    backends: Sequence[str] = ("torch-eager", "oneflow-eager", "oneflow-graph"),
    model: str | Callable[[], Any] | Mapping[str, str | Callable[[], Any]] = "mobilenet_v2",
    data: Any = "digits",
    *,
    steps: int = 50,
    samples: int = 8,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    dropout: float = 0.0,
    device: str = "auto",
    augment: bool | None = None,
    initial_weights: str | Path | Mapping[str, NDArray[Any]] | None = None,
    reset_weights: Sequence[str] = (),
    data_root: str | Path | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    dtype: Dtype = "float32",
    progress: bool = True,
) -> Comparison:
    """Whether a spec trains alike on several backends, measured: the same bitwise, within rounding, or different.

    Each backend makes the same updates in a process of its own: the same initial weights, batches and, for models
    known by name, dropout masks. Beside it, each backend's own session trains a small probe of
    the same spec whose gradients are known to the last bit, which no chaos of training blurs. What rounding alone
    can do is not chosen but measured: the reference runs again in float64, and ``samples`` times with errors of last
    bits in its weights, at each update. ``layered_lr.parity.verdict`` tells the method, ``parity.rounding.margin`` the
    margin and its reason, ``parity.probe`` the probe.

    Args:
        spec: As for ``run``.
        backends: Two or more, each once; the first one is the reference.
        model: As for ``run``; where the backends are of two frameworks, a mapping with a callable for each, such as
            ``{"torch": make_torch, "oneflow": make_oneflow}``, whose models have the same names and shapes: all
            begin with the weights of the reference's. Callables, and functions in the spec, must stand at a
            module's top level, where another process can import them.
        data: As for ``run``.
        steps: How many updates to compare.
        samples: Disturbed runs of the reference, at least 2: more make a narrower envelope and take longer.
        epochs: Length of the run that schedules are made for, of which the first ``steps`` updates are made; where
            neither this nor ``max_steps`` is given, the run is ``steps`` long.
        max_steps: Likewise, in updates.
        batch_size: As for ``run``.
        seed: As for ``run``.
        dropout: As for ``run``. A model of one's own with dropout is different in different frameworks.
        device: As for ``run``.
        augment: As for ``run``.
        initial_weights: As for ``run``.
        reset_weights: As for ``run``.
        data_root: As for ``run``.
        accumulate_steps: As for ``run``.
        ema_decay: As for ``run``; the averages are compared too.
        dtype: As for ``run``.
        progress: As for ``run``.

    Returns:
        Verdicts, rates, differences; a text to read when printed, and ``to_html`` makes a report of it. A backend
        that dies, refuses or is not installed is told of there, and the others go on.

    Raises:
        SpecError, DataError: As for ``run``; also fewer than two backends, or one of them twice.
        BackendUnavailable, Unsupported: As for ``run``, of the reference.
        LayeredLRError: The reference's process died.
    """
    from layered_lr.parity.compare_backends import compare_backends

    options = RunOptions(
        data=data,
        data_root=data_root,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        seed=seed,
        dropout=dropout,
        device=device,
        augment=augment,
        initial_weights=initial_weights,
        reset_weights=reset_weights,
        accumulate_steps=accumulate_steps,
        ema_decay=ema_decay,
        dtype=dtype,
        progress=progress,
    )
    return compare_backends(default_spec() if spec is None else spec, backends, model, options, steps, samples)
