"""The public functions: run, resume, plan, compare.

The signatures and the ``Args`` of options are made from their declarations in ``layered_lr.training.options``:
``python -m docs.generated`` renews them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from layered_lr.counts import whole_number
from layered_lr.data import dataset_facts
from layered_lr.errors import SpecError
from layered_lr.guesses import explain_names
from layered_lr.models.answering_layer import mark_answering
from layered_lr.models.nn_modules import framework_of
from layered_lr.models.user_models import make_model
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.spec.spec import Spec
from layered_lr.training.callback import Callback
from layered_lr.training.chosen_model import choose_model
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.early_stop import EarlyStop
from layered_lr.training.grouped_options import Checkpoints, Divergence, InitialWeights, Precision
from layered_lr.training.loss_function import LossFunction
from layered_lr.training.many_processes import was_restarted
from layered_lr.training.mix import Mix
from layered_lr.training.option import old_name, options_of
from layered_lr.training.options import RunOptions
from layered_lr.training.recipe import default_spec
from layered_lr.training.result import Result
from layered_lr.training.sizes import Sizes
from layered_lr.training.train import train

if TYPE_CHECKING:
    from layered_lr.parity.comparison import Comparison


def _options_in(arguments: Mapping[str, Any], **instead: Any) -> RunOptions:
    """The options among a function's arguments, checked.

    Args:
        arguments: By name; what is no option is left alone.
        instead: Options to take instead of these.
    """
    declared = options_of(RunOptions)
    return RunOptions(**{name: value for name, value in {**arguments, **instead}.items() if name in declared})


@explain_names("run", old_name)
def run(
    spec: Spec | None = None,
    # begin of run
    backend: str = "torch-eager",
    model: str | Callable[[], Any] = "mobilenet_v2",
    data: Any = "digits",
    *,
    data_root: str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    dropout: float | Mapping[str, float] | None = None,
    pretrained: str | Path | bool = False,
    head: str | None = None,
    initialise: str | Mapping[str, str] | None = None,
    image_size: int | None = None,
    device: str = "auto",
    augment: bool | Callable[..., Any] | None = None,
    drop_last: bool = True,
    sync_batch_norm: bool = False,
    shard: bool = False,
    sizes: Sizes | Sequence[int] | None = None,
    mix: Mix | None = None,
    initial_weights: InitialWeights | str | Path | Mapping[str, NDArray[Any]] | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    precision: Precision | str = "float32",
    loss: CrossEntropy | LossFunction | Callable[[Any, Any], Any] | str = "cross_entropy",
    checkpoints: Checkpoints | str | Path | None = None,
    divergence: Divergence | str = "stop",
    metrics: Any = (),
    early_stop: EarlyStop | None = None,
    callbacks: Sequence[Callback] = (),
    log: str | Sequence[str] = (),
    progress: bool = True,
    save: str | Path | None = None,
    dry_run: bool = False,
    # end of run
) -> Result:
    """Train a model under a spec; the same weights, batches and rates on every backend.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``.
        backend: What trains: 'torch-eager', 'torch-compile', 'oneflow-eager' or 'oneflow-graph'.
        model: The name of a model: 'mobilenet_v2', another classifier of torchvision such as 'resnet18', 'timm:NAME'.
            Or a callable without arguments that builds an nn.Module (on the command line package.module:callable).
            Every backend trains all of these; the OneFlow backends also train a module of OneFlow. 'mobilenet_v2'
            starts with weights that NumPy draws from the seed, all others as they were built.
        data: 'digits' (comes with the library), 'cifar10' and 'cifar100' (are downloaded once), the path of an .npz
            with x_train, y_train, x_test, y_test, or of a folder of images (PATH/CLASS/*.jpg) or of these arrays as
            .npy files. In Python also these four arrays as a mapping or a tuple, an ll.ImageFolder, a data set or a
            DataLoader of torch or two of them (ll.Samples), or an ll.Dataset.
        data_root: The folder of the CIFAR-10 or CIFAR-100 files.
        epochs: How many times to go through the training set.
        max_steps: The number of updates after which to stop, if the epochs do not end earlier.
        batch_size: How many images a batch has.
        seed: The seed for initial weights, the order of the batches, augmentation and dropout.
        dropout: The dropout probability of a model known by name: a number for all its dropouts, or numbers by pattern
            of their paths (on the command line classifier=0.5,features=0.1). Stochastic depth follows a pattern alone.
            The masks of 'mobilenet_v2' are the same on every backend.
        pretrained: Begin with pretrained weights: true for the best that torchvision or timm has, the name of some,
            such as 'IMAGENET1K_V1', or the path of a .pth, .safetensors or .npz file. A head for other classes stays
            new. Images are resized and normalised as the weights want it.
        head: The layer to put a new one for the data's classes in the place of: 'auto' (the layer that answers), or its
            path, such as 'classifier.6'.
        initialise: How to draw the weights of linear layers and convolutions: 'kaiming', 'xavier', 'orthogonal', 'svd'
            or 'torch' (or a table of these by pattern), from the seed, the same on every backend. Given weights stay.
        image_size: Resize the images to squares of so many pixels a side, when batches are made.
        device: Where to train: 'auto', 'cpu' or 'cuda'.
        augment: Whether to crop (padding 4) and flip images at random. In Python also a function fn(image, rng), or
            ll.Transform(transform) of torchvision's, which are seeded by epoch and image.
        drop_last: Whether the last images of an epoch are left out if they do not fill a batch.
        sync_batch_norm: In several processes: whether batch normalisations take mean and variance over the images of
            all processes, as one process would.
        shard: In several processes: whether each of them holds a part of every parameter, of its gradient and of the
            optimizer's state, instead of a whole copy. One process alone holds everything.
        sizes: Train on images of several sizes: ll.Sizes, or a list of numbers of pixels.
        mix: Mix the training images, and their labels, with one another: ll.Mix, for Mixup and CutMix.
        initial_weights: The weights to begin with, instead of the model's own: a path, arrays by name, or
            ll.InitialWeights.
        accumulate_steps: How many batches make one update, with the mean of their gradients. The last update of an
            epoch may have fewer. A step is an update everywhere: in schedules, in max_steps, in checkpoints.
        ema_decay: Keep an exponential moving average of the weights with this decay, such as 0.999, as torch's
            AveragedModel does, and evaluate it too.
        precision: The numbers to compute with: 'float32', 'float64', autocast to 'bfloat16' ('bf16') or 'float16'
            ('fp16'), or ll.Precision.
        loss: The loss to train with: 'cross_entropy', ll.CrossEntropy with label smoothing or class weights, or a
            function (outputs, targets) -> loss of yours (on the command line package.module:function).
        checkpoints: The run's folder, or ll.Checkpoints, which also says how often a checkpoint is written and how many
            stay.
        divergence: What to do when a loss or a gradient is NaN or infinite: 'stop', 'skip', 'rollback', or
            ll.Divergence.
        metrics: What else each evaluation measures: functions (outputs, targets) -> number of the whole test set's
            NumPy arrays, or objects of torchmetrics, by name or as a list. A run that goes on is given them again.
        early_stop: When the run ends before its last update, and that it then has its best weights: ll.EarlyStop.
        callbacks: Objects of classes that derive from ll.Callback. The run calls their methods at each event.
        log: Where to write a log to, beside the run's folder: 'csv:FILE', 'jsonl:FILE', 'tensorboard:FOLDER',
            'wandb:PROJECT' or 'mlflow:FOLDER'. A run that goes on continues it.
        progress: Whether to show a progress bar, where stderr is a terminal or in a notebook.
        save: The file to write the result to (an .npz), as Result.save does.
        dry_run: Only try the run: one update, one batch of evaluation, one checkpoint that is read again and removed.
            It says what it did, and keeps no file.

    Returns:
        Losses, rates as applied, accuracies, weights, timings.

    Raises:
        SpecError: The spec or an argument cannot be right.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The backend does not work on this machine.
        Unsupported: The backend cannot apply the plan exactly.
        TrainingDiverged: The loss became NaN or infinite.
        CallbackError: A callback raised.
        CheckpointError: The run's folder cannot be written to, holds a run already, or another run writes there.

    Example:
        Two updates of the default recipe on the embedded digits:

        >>> import layered_lr as ll
        >>> result = ll.run(max_steps=2, progress=False)
        >>> result.rates["backbone"]
        array([0.01, 0.01])
    """
    options = _options_in(locals())
    chosen = default_spec() if spec is None else spec
    if was_restarted(options):
        from layered_lr.training.resume import go_on_after_restart

        return go_on_after_restart(chosen, options)
    return train(chosen, options)


def resume(
    path: str | Path, spec: Spec | None = None, *, strict: bool = True, trust: bool = False, **changes: Any
) -> Result:
    """Go on with a run that was stopped, from its newest good checkpoint. The result is bitwise that of one run.

    If a checkpoint is damaged, stderr names it, and the one before it is used. stderr also says what has changed since
    then: the plan, or versions of packages.

    Args:
        path: The run's folder: what was given as ``checkpoints``.
        spec: Another spec for the rest of the run: other schedules, rates, phases.
        strict: Refuse a model with other parameters than the run's, other data, or another optimizer. False uses what
            fits, says what does not fit, and initialises that again.
        trust: Import the code that the folder names: your own model, functions of schedules. Importing runs the code,
            so a folder that names code is refused without ``trust``. If you give ``model=...`` and ``spec`` again, you
            do not need it.
        changes: Options of ``run`` to change. ``backend`` goes on with another framework; ``epochs`` or ``max_steps``
            make the run longer. Give ``model`` and ``data`` again if a file cannot hold them (a lambda, arrays).
            ``batch_size``, ``accumulate_steps``, ``seed``, ``augment``, ``dropout``, ``precision`` and ``ema_decay``
            cannot change, because the position in the data or the arithmetic depends on them.

    Returns:
        The result of the whole run, including what was before the stop.

    Raises:
        CheckpointError: There is no run, no good checkpoint, or one that does not fit; another process writes there.
        SpecError: An argument that cannot be changed or cannot be right.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> spec = ll.Spec(ll.SGD(0.1))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     said = {"model": build, "data": data, "batch_size": 4, "progress": False}
        ...     _ = ll.run(spec, epochs=1, checkpoints=f"{folder}/run", **said)
        ...     longer = ll.resume(f"{folder}/run", epochs=2, model=build, data=data)
        >>> len(longer.losses)
        4
    """
    from layered_lr.training.resume import resume_run

    return resume_run(path, spec, strict, trust, changes)


@explain_names("plan", old_name)
def plan(
    spec: Spec | None = None,
    # begin of plan
    model: str | Callable[[], Any] = "mobilenet_v2",
    data: Any = "digits",
    *,
    data_root: str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 64,
    pretrained: str | Path | bool = False,
    head: str | None = None,
    image_size: int | None = None,
    drop_last: bool = True,
    accumulate_steps: int = 1,
    # end of plan
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> Plan:
    """The plan that ``run`` would follow with the same arguments; needs no framework for ``'mobilenet_v2'``.

    ``model`` may be an ``nn.Module`` object here too. Only the size of the data and its number of classes matter:
    ``"cifar10"`` is not downloaded. With ``total_steps`` or ``steps_per_epoch`` it is the plan of a training loop of
    your own, without a data set: the one that ``compile`` makes, and ``scheduler.plan`` has.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``.
        model: The name of a model: 'mobilenet_v2', another classifier of torchvision such as 'resnet18', 'timm:NAME'.
            Or a callable without arguments that builds an nn.Module (on the command line package.module:callable).
            Every backend trains all of these; the OneFlow backends also train a module of OneFlow. 'mobilenet_v2'
            starts with weights that NumPy draws from the seed, all others as they were built.
        data: 'digits' (comes with the library), 'cifar10' and 'cifar100' (are downloaded once), the path of an .npz
            with x_train, y_train, x_test, y_test, or of a folder of images (PATH/CLASS/*.jpg) or of these arrays as
            .npy files. In Python also these four arrays as a mapping or a tuple, an ll.ImageFolder, a data set or a
            DataLoader of torch or two of them (ll.Samples), or an ll.Dataset.
        data_root: The folder of the CIFAR-10 or CIFAR-100 files.
        epochs: How many times to go through the training set.
        max_steps: The number of updates after which to stop, if the epochs do not end earlier.
        batch_size: How many images a batch has.
        pretrained: Begin with pretrained weights: true for the best that torchvision or timm has, the name of some,
            such as 'IMAGENET1K_V1', or the path of a .pth, .safetensors or .npz file. A head for other classes stays
            new. Images are resized and normalised as the weights want it.
        head: The layer to put a new one for the data's classes in the place of: 'auto' (the layer that answers), or its
            path, such as 'classifier.6'.
        image_size: Resize the images to squares of so many pixels a side, when batches are made.
        drop_last: Whether the last images of an epoch are left out if they do not fill a batch.
        accumulate_steps: How many batches make one update, with the mean of their gradients. The last update of an
            epoch may have fewer. A step is an update everywhere: in schedules, in max_steps, in checkpoints.
        total_steps: Updates of a whole loop of your own; with ``epochs`` and ``steps_per_epoch`` they are known.
        steps_per_epoch: Updates of one epoch of that loop.

    Returns:
        Every group's parameters and rates. Print it to read it.

    Raises:
        SpecError: The spec or an argument cannot be right.
        DataError: The data is missing or damaged.

    Example:
        >>> import layered_lr as ll
        >>> ll.plan(epochs=1).lr(0)
        {'backbone': 0.010000000000000002, 'head': 0.1}

        Of a loop of your own, for a model of any kind:

        >>> import torch
        >>> spec = ll.Spec(ll.SGD(0.1), schedule=ll.StepLR(2, unit="epoch"))
        >>> ll.plan(spec, model=torch.nn.Linear(8, 2), epochs=6, steps_per_epoch=100).total_steps
        600
    """
    made = model if framework_of(model) else None
    options = _options_in(locals(), **({} if made is None else {"model": "mobilenet_v2"}))
    spec = default_spec() if spec is None else spec
    facts = dataset_facts(options.data, options.data_root, options.image_size)
    if total_steps is None and steps_per_epoch is None:
        in_epoch = options.steps_per_epoch(facts.train_size)
        lengths: tuple[int | None, int | None] = options.total_steps(in_epoch), in_epoch
    else:
        lengths = _lengths_of_own_loop(options, total_steps, steps_per_epoch)
    parameters: Any = made
    if made is None:
        chosen = choose_model(options, facts, loads=False, loads_files=True)
        parameters = chosen.list_parameters()
        if parameters is None and callable(chosen.source):
            parameters = make_model(chosen.source)
            mark_answering(parameters, chosen.source)
    return resolve(spec, parameters, *lengths)


def _lengths_of_own_loop(
    options: RunOptions, total_steps: int | None, steps_per_epoch: int | None
) -> tuple[int | None, int | None]:
    """The updates of a loop of the user's own, and those of an epoch.

    Raises:
        SpecError: Something else says how long the run is too.
    """
    said = options_of(RunOptions)
    for name in ("max_steps", "batch_size", "accumulate_steps"):
        if getattr(options, name) != said[name].default:
            raise SpecError(
                f"plan: {name} says how long a run is that ll.run makes, and total_steps and steps_per_epoch say it of "
                f"a loop of your own: leave {name} out, or those."
            )
    if options.epochs is None:
        return total_steps, steps_per_epoch
    if total_steps is not None or steps_per_epoch is None:
        raise SpecError(
            "plan: give total_steps, or epochs and steps_per_epoch, or steps_per_epoch alone for a loop without an end."
        )
    return options.epochs * whole_number("steps_per_epoch", steps_per_epoch, 1), steps_per_epoch


@explain_names("compare", old_name)
def compare(
    spec: Spec | None = None,
    backends: Sequence[str] = ("torch-eager", "oneflow-eager", "oneflow-graph"),
    model: str | Callable[[], Any] | Mapping[str, str | Callable[[], Any]] = "mobilenet_v2",
    # begin of compare
    data: Any = "digits",
    *,
    data_root: str | Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    dropout: float | Mapping[str, float] | None = 0.0,
    pretrained: str | Path | bool = False,
    head: str | None = None,
    initialise: str | Mapping[str, str] | None = None,
    image_size: int | None = None,
    device: str = "auto",
    augment: bool | Callable[..., Any] | None = None,
    drop_last: bool = True,
    sizes: Sizes | Sequence[int] | None = None,
    mix: Mix | None = None,
    initial_weights: InitialWeights | str | Path | Mapping[str, NDArray[Any]] | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    precision: Precision | str = "float32",
    loss: CrossEntropy | LossFunction | Callable[[Any, Any], Any] | str = "cross_entropy",
    progress: bool = True,
    # end of compare
    steps: int = 50,
    samples: int | None = None,
    quick: bool = False,
    resume_at: int | None = None,
) -> Comparison:
    """Whether a spec trains alike on several backends, measured: the same bitwise, within rounding, or different.

    Each backend makes the same updates in a process of its own, in the loop of ``run``: with the same initial weights,
    batches and, for models known by name, dropout masks. It makes them twice: as you asked for them, and in float64,
    where rounding is a billion times smaller than a fault. In addition, each backend trains a small *probe* with the
    same spec. Its gradients are known to the last bit, so small differences cannot grow there. Nobody chooses the
    tolerance: it is measured, from each backend's own distance from float64, and from runs of the reference with
    rounding errors that are added on purpose. ``layered_lr.parity.verdict`` explains the method,
    ``parity.disturbance.margin`` the margin, ``parity.probe`` the probe.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``.
        backends: Two or more, each once; the first one is the reference.
        model: A model's name, or a callable that builds a model: a torch model is translated for OneFlow. Or a mapping
            with a callable for each framework, such as ``{"torch": make_torch, "oneflow": make_oneflow}``, whose models
            have the same names and shapes. All begin with the weights of the first backend's model. Callables, and
            functions in the spec, must be defined at a module's top level, where another process can import them. A
            torch model with dropout gets the same masks on ``torch-eager`` and on the OneFlow backends; elsewhere set
            its dropout to 0.
        data: 'digits' (comes with the library), 'cifar10' and 'cifar100' (are downloaded once), the path of an .npz
            with x_train, y_train, x_test, y_test, or of a folder of images (PATH/CLASS/*.jpg) or of these arrays as
            .npy files. In Python also these four arrays as a mapping or a tuple, an ll.ImageFolder, a data set or a
            DataLoader of torch or two of them (ll.Samples), or an ll.Dataset.
        data_root: The folder of the CIFAR-10 or CIFAR-100 files.
        epochs: How many times to go through the training set.
        max_steps: The number of updates after which to stop, if the epochs do not end earlier.
        batch_size: How many images a batch has.
        seed: The seed for initial weights, the order of the batches, augmentation and dropout.
        dropout: The dropout probability of a model known by name: a number for all its dropouts, or numbers by pattern
            of their paths (on the command line classifier=0.5,features=0.1). Stochastic depth follows a pattern alone.
            The masks of 'mobilenet_v2' are the same on every backend.
        pretrained: Begin with pretrained weights: true for the best that torchvision or timm has, the name of some,
            such as 'IMAGENET1K_V1', or the path of a .pth, .safetensors or .npz file. A head for other classes stays
            new. Images are resized and normalised as the weights want it.
        head: The layer to put a new one for the data's classes in the place of: 'auto' (the layer that answers), or its
            path, such as 'classifier.6'.
        initialise: How to draw the weights of linear layers and convolutions: 'kaiming', 'xavier', 'orthogonal', 'svd'
            or 'torch' (or a table of these by pattern), from the seed, the same on every backend. Given weights stay.
        image_size: Resize the images to squares of so many pixels a side, when batches are made.
        device: Where to train: 'auto', 'cpu' or 'cuda'.
        augment: Whether to crop (padding 4) and flip images at random. In Python also a function fn(image, rng), or
            ll.Transform(transform) of torchvision's, which are seeded by epoch and image.
        drop_last: Whether the last images of an epoch are left out if they do not fill a batch.
        sizes: Train on images of several sizes: ll.Sizes, or a list of numbers of pixels.
        mix: Mix the training images, and their labels, with one another: ll.Mix, for Mixup and CutMix.
        initial_weights: The weights to begin with, instead of the model's own: a path, arrays by name, or
            ll.InitialWeights.
        accumulate_steps: How many batches make one update, with the mean of their gradients. The last update of an
            epoch may have fewer. A step is an update everywhere: in schedules, in max_steps, in checkpoints.
        ema_decay: Keep an exponential moving average of the weights with this decay, such as 0.999, as torch's
            AveragedModel does, and evaluate it too.
        precision: The numbers to compute with: 'float32', 'float64', autocast to 'bfloat16' ('bf16') or 'float16'
            ('fp16'), or ll.Precision.
        loss: The loss to train with: 'cross_entropy', ll.CrossEntropy with label smoothing or class weights, or a
            function (outputs, targets) -> loss of yours (on the command line package.module:function).
        progress: Whether to show a progress bar, where stderr is a terminal or in a notebook.
        quick: Compare in float64 alone, over the first fifth of the updates. The probes make all updates, with two
            parameters of each kind: the same group, decay, phases and number of dimensions.
        resume_at: Stop each backend's run after this update, and go on from a checkpoint's files in a new session.
        steps: How many updates to compare, the first ones of the run that ``epochs`` or ``max_steps`` say; the run is
            this long where neither is given.
        samples: How many times to run the reference with rounding errors on purpose, in each precision, at least 2;
            None is 2 where float64 judges and 8 elsewhere. More make a narrower envelope and take longer.

    Returns:
        Verdicts, rates, differences; a text to read when printed, and ``to_html`` makes a report of it. Where a backend
        dies, refuses or is not installed, the result says so, and the others go on.

    Raises:
        SpecError: The spec or an argument cannot be right; fewer than two backends, or one of them twice.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The reference does not work on this machine.
        Unsupported: The reference cannot apply the plan exactly.
        LayeredLRError: The reference's process died.
    """
    options = _options_in(locals(), model="mobilenet_v2")
    from layered_lr.parity.compare_backends import compare_backends

    return compare_backends(
        default_spec() if spec is None else spec, backends, model, options, steps, samples, quick, resume_at
    )
