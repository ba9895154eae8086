"""Every option of a run. Each is declared here once; flags, recipe keys, checks and docs come from it.

From these declarations come the command's flags and their help, the keys of a recipe's ``[run]`` table, what may change
when a run goes on, the signatures and ``Args`` of ``ll.run``, ``ll.plan`` and ``ll.compare`` (``docs.generated`` writes
them into ``api.py``), and the documentation's table. A new option is a field here, and the place where it acts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from layered_lr.errors import SpecError
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.early_stop import EarlyStop
from layered_lr.training.grouped_options import (
    Checkpoints,
    Divergence,
    InitialWeights,
    Precision,
    anything,
    path_or_none,
)
from layered_lr.training.in_file import InFile
from layered_lr.training.loss_function import LossFunction, read_loss
from layered_lr.training.mix import Mix
from layered_lr.training.option import (
    GOES_ON,
    MAY_CHANGE,
    RUN_ONLY,
    TRAINING,
    UPDATES,
    number,
    option,
    option_class,
    optional,
    options_of,
    whole_number,
    yes_or_no,
)
from layered_lr.training.option_checks import (
    read_augment,
    read_backend,
    read_callbacks,
    read_device,
    read_dropout,
    read_head,
    read_initialise,
    read_log,
    read_metrics,
    read_model,
    read_pretrained,
    read_save,
)
from layered_lr.training.sizes import Sizes
from layered_lr.training.written_options import is_written, table_of_options

if TYPE_CHECKING:
    from layered_lr.training.callback import Callback

DEFAULT_EPOCHS = 6

KEPT_OF_A_RUN = ("sync_batch_norm", "shard", "checkpoints", "divergence", "callbacks", "log", "save", "dry_run")
"""Options that say what is kept of a run, or how it goes on: they have no meaning for what is tried before it."""

_LARGEST_IMAGE = 1 << 14
_LARGEST_SEED = 2**63  # below which every generator takes a seed
_MOST_STEPS = 2**53  # up to which every count is exact in float64


@option_class
class RunOptions:
    """How to run a spec, checked before anything is loaded. ``ll.run`` takes each of these by name."""

    __called__: ClassVar[str] = "run"

    backend: str = option(
        default="torch-eager",
        help="What trains: 'torch-eager', 'torch-compile', 'oneflow-eager' or 'oneflow-graph'.",
        check=read_backend,
        allowed="a backend's name",
        meaning=GOES_ON,
        flag="--backend",
        metavar="NAME",
    )
    model: Any = option(
        default="mobilenet_v2",
        help=(
            "The name of a model: 'mobilenet_v2', another classifier of torchvision such as 'resnet18', 'timm:NAME'. "
            "Or a callable without arguments that builds an nn.Module (on the command line package.module:callable). "
            "Every backend trains all of these; the OneFlow backends also train a module of OneFlow. 'mobilenet_v2' "
            "starts with weights that NumPy draws from the seed, all others as they were built."
        ),
        check=read_model,
        allowed="a model's name, or a callable",
        flag="--model",
        metavar="NAME",
        accepts="str | Callable[[], Any]",
    )
    data: Any = option(
        default="digits",
        help=(
            "'digits' (comes with the library), 'cifar10' and 'cifar100' (are downloaded once), the path of an .npz "
            "with x_train, y_train, x_test, y_test, or of a folder of images (PATH/CLASS/*.jpg) or of these arrays as "
            ".npy files. In Python also these four arrays as a mapping or a tuple, an ll.ImageFolder, a data set or "
            "a DataLoader of torch or two of them (ll.Samples), or an ll.Dataset."
        ),
        check=anything,
        allowed="a data set's name, a path, arrays, ll.ImageFolder, or ll.Dataset",
        flag="--data",
        metavar="NAME|PATH",
    )
    data_root: Path | None = option(
        default=None,
        help="The folder of the CIFAR-10 or CIFAR-100 files.",
        check=functools.partial(path_or_none, "data_root"),
        allowed="a path, or None",
        flag="--data-root",
        metavar="DIR",
        accepts="str | Path | None",
        shown_default="the user's cache",
    )
    epochs: int | None = option(
        default=None,
        help="How many times to go through the training set.",
        check=optional(whole_number(1)),
        flag="--epochs",
        kind="int",
        shown_default="6, where max_steps is not given either",
        compare_shown="as long as --steps, where max_steps is not given either",
    )
    max_steps: int | None = option(
        default=None,
        help="The number of updates after which to stop, if the epochs do not end earlier.",
        check=optional(whole_number(1, _MOST_STEPS)),
        allowed="a whole number >= 1, or None",
        flag="--max-steps",
        kind="int",
        shown_default="no limit",
    )
    batch_size: int = option(
        default=64,
        help="How many images a batch has.",
        check=whole_number(1),
        meaning=UPDATES,
        flag="--batch-size",
        kind="int",
        compare_default=32,
    )
    seed: int = option(
        default=0,
        help="The seed for initial weights, the order of the batches, augmentation and dropout.",
        check=whole_number(0, _LARGEST_SEED),
        allowed="a whole number >= 0",
        meaning=TRAINING,
        flag="--seed",
        kind="int",
    )
    dropout: float | Mapping[str, float] | None = option(
        default=None,
        help=(
            "The dropout probability of a model known by name: a number for all its dropouts, or numbers by pattern of "
            "their paths (on the command line classifier=0.5,features=0.1). Stochastic depth follows a pattern alone. "
            "The masks of 'mobilenet_v2' are the same on every backend."
        ),
        check=read_dropout,
        allowed="a number from 0 to 1, numbers by pattern, or None",
        meaning=TRAINING,
        flag="--dropout",
        metavar="P|PATTERN=P,…",
        kind="pairs",
        compare_default=0.0,
        shown_default="the model's own",
        compare_shown="0.0",
    )
    pretrained: str | bool = option(
        default=False,
        help=(
            "Begin with pretrained weights: true for the best that torchvision or timm has, the name of some, such as "
            "'IMAGENET1K_V1', or the path of a .pth, .safetensors or .npz file. A head for other classes stays new. "
            "Images are resized and normalised as the weights want it."
        ),
        check=read_pretrained,
        allowed="true, false, a name, or a path",
        meaning=UPDATES,
        flag="--pretrained",
        metavar="[NAME|FILE]",
        kind="optional",
        accepts="str | Path | bool",
    )
    head: str | None = option(
        default=None,
        help=(
            "The layer to put a new one for the data's classes in the place of: 'auto' (the layer that answers), or "
            "its path, such as 'classifier.6'."
        ),
        check=optional(read_head),
        allowed="'auto', a path, or None",
        meaning=UPDATES,
        flag="--head",
        metavar="PATH",
        shown_default="auto for models by name; a callable's model stays as it is",
    )
    initialise: str | Mapping[str, str] | None = option(
        default=None,
        help=(
            "How to draw the weights of linear layers and convolutions: 'kaiming', 'xavier', 'orthogonal', 'svd' or "
            "'torch' (or a table of these by pattern), from the seed, the same on every backend. Given "
            "weights stay."
        ),
        check=read_initialise,
        allowed="a method's name, methods by pattern, or None",
        meaning=TRAINING,
        flag="--initialise",
        metavar="NAME|PATTERN=NAME,…",
        kind="words",
        shown_default="as the model is built",
    )
    image_size: int | None = option(
        default=None,
        help="Resize the images to squares of so many pixels a side, when batches are made.",
        check=optional(whole_number(1, _LARGEST_IMAGE)),
        meaning=UPDATES,
        flag="--image-size",
        kind="int",
        shown_default="as the pretrained weights want it, else as the data are",
    )
    device: str = option(
        default="auto",
        help="Where to train: 'auto', 'cpu' or 'cuda'.",
        check=read_device,
        allowed="a device's name",
        meaning=MAY_CHANGE,
        flag="--device",
        metavar="NAME",
    )
    augment: bool | Callable[..., Any] | None = option(
        default=None,
        help=(
            "Whether to crop (padding 4) and flip images at random. In Python also a function fn(image, rng), or "
            "ll.Transform(transform) of torchvision's, which are seeded by epoch and image."
        ),
        check=read_augment,
        allowed="true, false, a function, or None",
        meaning=("run", "compare", "resume"),
        flag="--augment",
        kind="bool",
        accepts="bool | Callable[..., Any] | None",
        shown_default="as the data set says; cifar10 and cifar100: yes",
    )
    drop_last: bool = option(
        default=True,
        help="Whether the last images of an epoch are left out if they do not fill a batch.",
        check=yes_or_no,
        meaning=UPDATES,
        flag="--drop-last",
        kind="bool",
    )
    sync_batch_norm: bool = option(
        default=False,
        help=(
            "In several processes: whether batch normalisations take mean and variance over the images of all "
            "processes, as one process would."
        ),
        check=yes_or_no,
        meaning=RUN_ONLY,
        flag="--sync-batch-norm",
        kind="bool",
    )
    shard: bool = option(
        default=False,
        help=(
            "In several processes: whether each of them holds a part of every parameter, of its gradient and of the "
            "optimizer's state, instead of a whole copy. One process alone holds everything."
        ),
        check=yes_or_no,
        meaning=GOES_ON,
        flag="--shard",
        kind="bool",
    )
    sizes: Sizes | None = option(
        default=None,
        help="Train on images of several sizes: ll.Sizes, or a list of numbers of pixels.",
        check=Sizes.of,
        allowed="ll.Sizes, numbers of pixels, or None",
        meaning=TRAINING,
        parts=Sizes,
        accepts="Sizes | Sequence[int] | None",
    )
    mix: Mix | None = option(
        default=None,
        help="Mix the training images, and their labels, with one another: ll.Mix, for Mixup and CutMix.",
        check=Mix.of,
        allowed="ll.Mix, or None",
        meaning=TRAINING,
        parts=Mix,
    )
    initial_weights: InitialWeights | None = option(
        default=None,
        help=("The weights to begin with, instead of the model's own: a path, arrays by name, or ll.InitialWeights."),
        check=InitialWeights.of,
        allowed="a path, a mapping of arrays, ll.InitialWeights, or None",
        meaning=MAY_CHANGE,
        parts=InitialWeights,
        accepts="InitialWeights | str | Path | Mapping[str, NDArray[Any]] | None",
    )
    accumulate_steps: int = option(
        default=1,
        help=(
            "How many batches make one update, with the mean of their gradients. The last update of an epoch may have "
            "fewer. A step is an update everywhere: in schedules, in max_steps, in checkpoints."
        ),
        check=whole_number(1),
        meaning=UPDATES,
        flag="--accumulate-steps",
        kind="int",
    )
    ema_decay: float | None = option(
        default=None,
        help=(
            "Keep an exponential moving average of the weights with this decay, such as 0.999, as torch's "
            "AveragedModel does, and evaluate it too."
        ),
        check=optional(number("a number >= 0 and below 1", lambda value: 0 <= value < 1)),
        meaning=TRAINING,
        flag="--ema-decay",
        kind="float",
        shown_default="no average",
    )
    precision: Precision = option(
        default="float32",
        help=(
            "The numbers to compute with: 'float32', 'float64', autocast to 'bfloat16' ('bf16') or 'float16' "
            "('fp16'), or ll.Precision."
        ),
        check=Precision.of,
        allowed="'float32', 'float64', 'bfloat16', 'float16', or ll.Precision",
        meaning=TRAINING,
        parts=Precision,
        accepts="Precision | str",
    )
    loss: CrossEntropy | LossFunction = option(
        default="cross_entropy",
        help=(
            "The loss to train with: 'cross_entropy', ll.CrossEntropy with label smoothing or class weights, or a "
            "function (outputs, targets) -> loss of yours (on the command line package.module:function)."
        ),
        check=read_loss,
        allowed="'cross_entropy', ll.CrossEntropy, or a function",
        meaning=MAY_CHANGE,
        flag="--loss",
        metavar="MODULE:FUNCTION",
        parts=CrossEntropy,
        accepts="CrossEntropy | LossFunction | Callable[[Any, Any], Any] | str",
    )
    checkpoints: Checkpoints | None = option(
        default=None,
        help=(
            "The run's folder, or ll.Checkpoints, which also says how often a checkpoint is written and how many stay."
        ),
        check=Checkpoints.of,
        allowed="a path, ll.Checkpoints, or None",
        meaning=GOES_ON,
        parts=Checkpoints,
        accepts="Checkpoints | str | Path | None",
    )
    divergence: Divergence = option(
        default="stop",
        help="What to do when a loss or a gradient is NaN or infinite: 'stop', 'skip', 'rollback', or ll.Divergence.",
        check=Divergence.of,
        allowed="'stop', 'skip', 'rollback', or ll.Divergence",
        meaning=GOES_ON,
        parts=Divergence,
        accepts="Divergence | str",
    )
    metrics: Mapping[str, Any] | Sequence[Any] = option(
        default=(),
        help=(
            "What else each evaluation measures: functions (outputs, targets) -> number of the whole test set's NumPy "
            "arrays, or objects of torchmetrics, by name or as a list. A run that goes on is given them again."
        ),
        check=read_metrics,
        allowed="functions or objects of torchmetrics, by name or as a list",
        meaning=GOES_ON,
        is_written=False,
        accepts="Any",
    )
    early_stop: EarlyStop | None = option(
        default=None,
        help="When the run ends before its last update, and that it then has its best weights: ll.EarlyStop.",
        check=EarlyStop.of,
        allowed="ll.EarlyStop, or None",
        meaning=GOES_ON,
        parts=EarlyStop,
    )
    callbacks: Sequence[Callback] = option(
        default=(),
        help="Objects of classes that derive from ll.Callback. The run calls their methods at each event.",
        check=read_callbacks,
        allowed="a list of ll.Callback objects",
        meaning=GOES_ON,
        is_written=False,
    )
    log: Sequence[str] = option(
        default=(),
        help=(
            "Where to write a log to, beside the run's folder: 'csv:FILE', 'jsonl:FILE', 'tensorboard:FOLDER', "
            "'wandb:PROJECT' or 'mlflow:FOLDER'. A run that goes on continues it."
        ),
        check=read_log,
        allowed="a list of words such as 'tensorboard:FOLDER'",
        meaning=GOES_ON,
        flag="--log",
        metavar="KIND:PLACE",
        kind="list",
        accepts="str | Sequence[str]",
    )
    progress: bool = option(
        default=True,
        help="Whether to show a progress bar, where stderr is a terminal or in a notebook.",
        check=yes_or_no,
        meaning=MAY_CHANGE,
        flag="--progress",
        kind="bool",
    )
    save: Path | None = option(
        default=None,
        help="The file to write the result to (an .npz), as Result.save does.",
        check=read_save,
        allowed="a path in a folder that is there, or None",
        meaning=GOES_ON,
        flag="--save",
        metavar="FILE",
        accepts="str | Path | None",
    )

    dry_run: bool = option(
        default=False,
        help=(
            "Only try the run: one update, one batch of evaluation, one checkpoint that is read again and removed. It "
            "says what it did, and keeps no file."
        ),
        check=yes_or_no,
        meaning=RUN_ONLY,
        flag="--dry-run",
        kind="bool",
        is_written=False,
    )

    @property
    def listeners(self) -> tuple[Callback, ...]:
        """The callbacks, and a new logger for each word of ``log``."""
        if not self.log:
            return tuple(self.callbacks)
        from layered_lr.training.loggers.words import make_loggers

        return (*self.callbacks, *make_loggers(self.log))

    def steps_per_epoch(self, train_size: int) -> int:
        """Updates of an epoch: its whole batches, ``accumulate_steps`` to an update; the last may have fewer.

        Raises:
            SpecError: The batch is larger than the training set, or ``data`` is a ``DataLoader`` with other batches.
        """
        if self.batch_size > train_size:
            raise SpecError(f"run(batch_size={self.batch_size}): the training set has only {train_size} images.")
        from layered_lr.data.loaders import check_loaders

        check_loaders(self.data, self.batch_size, self.drop_last, train_size)
        batches = train_size // self.batch_size if self.drop_last else -(-train_size // self.batch_size)
        return -(-batches // self.accumulate_steps)

    def total_steps(self, steps_per_epoch: int) -> int:
        """How many updates the run makes: ``epochs`` of them, and no more than ``max_steps``."""
        if self.epochs is None and self.max_steps is not None:
            return self.max_steps
        by_epochs = (self.epochs or DEFAULT_EPOCHS) * steps_per_epoch
        steps = by_epochs if self.max_steps is None else min(by_epochs, self.max_steps)
        if steps > _MOST_STEPS:
            raise SpecError(f"run(epochs={self.epochs}): makes {steps:.3g} updates; a run can have {_MOST_STEPS:.3g}.")
        return steps

    def to_dict(self) -> dict[str, Any]:
        """The options that can be written down, as a recipe's ``[run]`` table holds them."""
        return table_of_options(self)

    def unwritten(self) -> list[str]:
        """The names of the options that are given and cannot be written down, wholly or in part."""
        return [name for name in options_of(type(self)) if not is_written(self, name)]


def options_with_meaning(command: str, cls: Any = RunOptions) -> Iterable[str]:
    """The names of the options that have a meaning in ``run``, ``plan``, ``compare`` or ``resume``, in their order."""
    return [name for name, each in options_of(cls).items() if command in each.meaning]


def field_types(cls: Any) -> dict[str, str]:
    """The type of each option as the declaration has it, or as ``ll.run`` takes it where that is wider."""
    accepted = options_of(cls)
    return {each.name: accepted[each.name].accepts or str(each.type) for each in fields(cls)}


def merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Options from two places, as tables; where both say something, ``above`` wins, part by part.

    Args:
        below: Such as a recipe's; an option with parts may be a table of them, or a value that stands for all.
        above: Such as the command line's; options with parts are tables.
    """
    merged = dict(below)
    for name, value in above.items():
        parts = options_of(RunOptions)[name].parts if name in options_of(RunOptions) else None
        is_table = parts is not None and isinstance(value, Mapping) and set(value) <= set(options_of(parts))
        if is_table and merged.get(name) is not None:  # arrays by name are no table of parts
            known: Any = parts
            said = {"folder": merged[name]} if isinstance(merged[name], InFile) else merged[name]
            if isinstance(said, Mapping):  # a place that a file names is no matter where another one is given
                said = {part: own for part, own in said.items() if part not in value}
            merged[name] = {**_table_of(known.of(said)), **value}
        else:
            merged[name] = value
    return merged


def _table_of(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}
