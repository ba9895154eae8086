"""The base classes of backends (they build and load models) and sessions (they train a model with a plan)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from layered_lr.arrays import Array, Arrays, Float32, Float64, Floats, Slots, Targets, Weights
from layered_lr.backend.processes import ALONE, Launch, Processes
from layered_lr.backend.target_checks import check_numbers
from layered_lr.errors import DataError, SpecError, Unsupported
from layered_lr.losses import PLAIN_LOSS, LossSettings
from layered_lr.models.nn_modules import Module, dtype_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Reactions
from layered_lr.scaling import LossScaling
from layered_lr.state.training_state import TrainingState, find_masks, find_unusual

Dtype: TypeAlias = Literal["float32", "float64"]

LossHandle: TypeAlias = Any
"""A loss as an object of the framework, whose number may not be known yet."""

LoopOptimizer: TypeAlias = Any
"""An optimizer of torch or OneFlow in a user's training loop, or the ``oneflow.nn.Graph`` that has one."""

LoopScheduler: TypeAlias = Any
"""The scheduler that goes with a ``LoopOptimizer``, or None."""


class Extras(NamedTuple):
    """What a session does in addition to the updates of its plan.

    Args:
        accumulate_steps: The largest number of parts in which the batch of an update comes.
        ema_decay: Decay of the moving average of the weights, >= 0 and < 1; None keeps no average.
        grad_norms: Whether to measure each group's gradient norm at each update.
        seed: Seed of the dropout masks of models that the library builds.
        autocast: The dtype of matrix products and convolutions in the forward pass, such as ``"bfloat16"``; None is the
            dtype of the model.
        sizes: Pixels of a side of the training images, where they have several.
        scaling: How the loss is scaled where ``autocast`` is ``"float16"``.
        sync_batch_norm: Whether batch normalisations take mean and variance over the images of all processes.
        loss: What the updates make smaller.
    """

    accumulate_steps: int = 1
    ema_decay: float | None = None
    grad_norms: bool = False
    seed: int = 0
    autocast: str | None = None
    sizes: tuple[int, ...] = ()
    scaling: LossScaling = LossScaling()
    sync_batch_norm: bool = False
    loss: LossSettings = PLAIN_LOSS


NO_EXTRAS = Extras()


class StepOutcome(NamedTuple):
    """What ``Session.train_step`` came to.

    Args:
        loss: The batch's loss before the update, as the framework has it: ``Session.losses`` reads it.
        made_update: Whether the weights were updated. Where not, the session stands where it stood: its count of
            updates, its schedules and its optimizer are as before.
        why: Why no update was made, in words; empty where one was.
        loss_scale: What the loss is scaled with from now on, where none was made because a gradient overflowed in
            float16; None elsewhere.
    """

    loss: LossHandle
    made_update: bool = True
    why: str = ""
    loss_scale: float | None = None


def check_logits(logits: object, count: int, num_classes: int, dtypes: Sequence[str]) -> None:
    """Refuse an output of a model that is no floating tensor of shape (images, at least ``num_classes``).

    OneFlow would go on with labels out of range, or abort the process. This is no method, because a graph keeps it: a
    session that its graph holds would be in a cycle with it.

    Args:
        logits: The output of the model.
        count: Number of images.
        num_classes: Of the data; 0 where its targets are no class numbers, and the answer may have any shape (N, ...).
        dtypes: That the model may answer with.

    Raises:
        SpecError: It is not a tensor, or has another shape or dtype.
    """
    shape = tuple(getattr(logits, "shape", ()))
    if not num_classes and (not shape or shape[0] != count):
        raise SpecError(
            f"model: returned {f'shape {shape}' if shape else f'a {type(logits).__name__}'} for {count} images; must "
            f"be a tensor whose first axis has one entry for each image, ({count}, ...)."
        )
    if num_classes and (len(shape) != 2 or shape[0] != count or shape[1] < num_classes):
        what = f"shape {shape}" if shape else f"a {type(logits).__name__}"
        many = isinstance(logits, Mapping | tuple | list)
        hint = " Let it return the logits alone, such as by a module around it." if many else ""
        raise SpecError(
            f"model: returned {what} for {count} images; must be a tensor of shape ({count}, {num_classes}), with a "
            f"number for each of the data's {num_classes} classes.{hint}"
        )
    dtype = dtype_of(logits)
    if dtype not in dtypes:
        raise SpecError(
            f"model: returned {dtype} for {count} images; must be one of {', '.join(dtypes)}. Convert the logits at "
            "the end of forward()."
        )


def check_outputs(logits: object, classes: int) -> None:
    """Refuse more outputs than classes: smoothing would go to classes that the data do not have.

    Args:
        logits: The output of the model, of two dimensions.
        classes: Of the data.

    Raises:
        SpecError: There are more.
    """
    outputs = tuple(getattr(logits, "shape", ()))[1]
    if outputs != classes:
        raise SpecError(
            f"loss: the model answers with {outputs} numbers for {classes} classes; label smoothing, class weights, "
            "reduction='sum' and mixed images need as many outputs as classes. Give the model a head for them "
            "(head='auto'), or leave it out."
        )


class Session(ABC):
    """A model in training with a plan. It takes and returns NumPy arrays. ``Backend.open`` makes it.

    The parameters in ``plan.frozen`` do not change: they get no gradient and do not decay. Frozen batch normalisations
    and dropouts follow the settings of the plan's phase.

    Args:
        plan: Rates and groups of the whole run, or of one of its phases; a plan without phases.
        num_classes: Labels are 0 to ``num_classes - 1``; 0 where the targets are values or masks.
        extras: What the session does in addition. Gradient norms are also measured if the plan clips by them.
        step: Updates that the run has made before this session. All counts of updates, also in ``rates`` and
            ``grad_norms``, are from the start of the run.

    Raises:
        SpecError: The plan has phases; ``phased_session.open_session`` opens a session for each of them.
    """

    steps_ahead: int = 50
    """Updates that the training loop may start before it waits for the first of them. Rare waits cost little time, but
    an interrupt has to wait for all updates that were started; slow sessions have a smaller number."""

    wants_channels_last: bool = False
    """Whether images are faster for this session if their memory is NHWC; their shape is (N, C, H, W) in any case. A
    session accepts both."""

    logits_dtypes: tuple[str, ...] = ("float32", "float64")
    """The dtypes that the model may answer with."""

    compile_seconds: float | None = None
    """Seconds that compiling the model has taken so far; None if nothing is compiled."""

    whole: int | None = None
    """How many images the present update has in all processes; None where each has as many."""

    def __init__(self, plan: Plan, num_classes: int, extras: Extras, step: int = 0) -> None:
        if plan.phases:
            raise SpecError(
                "a session trains one phase: use layered_lr.backend.phased_session.open_session for a plan with phases."
            )
        self.plan = plan
        self.start = self.step = step
        self.num_classes = num_classes
        self._target_shape: tuple[int, ...] | None = None  # of values or masks, once there were some
        measured = extras.grad_norms or plan.spec.clip_grad_norm is not None
        self.extras = extras._replace(grad_norms=measured)

    def train_step(self, images: Float32, labels: Targets, parts: int = 1, whole: int | None = None) -> StepOutcome:
        """Make one update.

        Args:
            images: Shape (N, C, H, W), float32; ``N / parts`` must be the same at every call.
            labels: Shape (N,), int64, each in ``0 .. num_classes - 1``; or the share of each class, float64 of shape
                (N, num_classes); or values or masks, shape (N, ...), where ``num_classes`` is 0.
            parts: The model takes the batch in this many parts of equal size, one after the other; the mean of their
                gradients makes the update. At most ``extras.accumulate_steps``.
            whole: How many images the update has in all processes that train together, where they may have unequal
                shares of them (``Share.part``); None is as many in each.

        Returns:
            The batch's loss, and whether an update was made of it; nothing is waited for.

        Raises:
            DataError: Images and labels differ in number, the batch is empty or cannot be divided into the parts, or a
                label is out of range (OneFlow would return NaN or abort the process).
        """
        if not 1 <= parts <= self.extras.accumulate_steps or len(images) % parts:
            raise DataError(
                f"a batch of {len(images)} images in {parts} parts: must be 1 to {self.extras.accumulate_steps} "
                "(accumulate_steps) parts of equal size."
            )
        if not self.num_classes:
            check_numbers(len(images), labels, self._target_shape)
            self._target_shape = labels.shape[1:]
        elif labels.ndim == 2:
            self._check_shares(len(images), labels)
        elif len(images) == 0 or labels.shape != (len(images),):
            raise DataError(
                f"a batch of {len(images)} images with labels of shape {labels.shape}: each image must have one label."
            )
        # ufunc.reduce is faster than min() and max(); this runs at every step.
        elif np.minimum.reduce(labels) < 0 or np.maximum.reduce(labels) >= self.num_classes:
            raise DataError(f"labels from {labels.min()} to {labels.max()}: must be 0 to {self.num_classes - 1}.")
        self.whole = whole
        outcome = self._update(images, labels, parts)
        self.step += outcome.made_update
        return outcome

    def _check_shares(self, images: int, shares: Targets) -> None:
        """Refuse shares of classes that are none.

        Raises:
            DataError: They are not one finite number >= 0 for each image and class.
        """
        if not images or shares.shape != (images, self.num_classes) or shares.dtype.kind != "f":
            raise DataError(
                f"a batch of {images} images with {shares.dtype} labels of shape {shares.shape}: shares of classes are "
                f"floats of shape ({images}, {self.num_classes})."
            )
        if not (np.isfinite(shares).all() and (shares >= 0).all()):
            raise DataError("a batch has shares of classes that are negative or not finite.")

    def losses(self, outcomes: Sequence[StepOutcome]) -> Float64:
        """The losses of some calls of ``train_step``, as numbers, shape (n,); waits for the framework."""
        return self._losses([outcome.loss for outcome in outcomes])

    def export_state(self) -> TrainingState:
        """Return a copy of everything that the next update depends on; this waits for the framework."""
        weights = self._state_weights()
        names = [name for parameter in self.plan.parameters for name in parameter.names]
        here = self.plan.plan_at(max(self.step - 1, 0))
        optimizer = type(here.spec.optimizer).__name__
        return TrainingState(
            step=self.step,
            optimizer=optimizer,
            kinds=find_unusual(optimizer, here.kinds),
            weights=weights,
            slots=self._slots(),
            reactions=self._reactions(),
            ema={} if self.extras.ema_decay is None else {**self._state_averages(), **self._unsaved_averages()},
            random=self._random(),
            unsaved=self._unsaved(),
            masks=find_masks(weights, names),
            scaler=self._scaler_state(),
        )

    def import_state(self, state: TrainingState) -> None:
        """Continue from a state, of this framework or the other.

        Parameters without slots in the state start with new ones. The random state of another framework is ignored.

        Raises:
            CheckpointError: The state is of another optimizer or has other reactive groups, or its weights, averages
                or slots are missing, too many, of another shape or dtype, or not finite. Then nothing has changed.
        """
        state.check_optimizer(self.plan.kinds)
        state.check_finite()
        state.check_reactions(self._reactions())
        own = self._state_weights()
        state.check_fits(own)
        if self.extras.ema_decay is not None and state.ema:
            averaged = {name: array for name, array in self._unsaved_averages().items() if name in state.ema}
            state.check_fits({**own, **averaged}, state.ema)
        state.check_slots(self._new_slots())
        self._import(state)
        self.start = self.step = state.step

    def pass_over(self, state: TrainingState) -> None:
        """Continue from a state of this session as if one more update had been made that changed only the count.

        Args:
            state: The state before that update.
        """
        self.import_state(replace(state, step=state.step + 1))

    def _state_weights(self) -> Weights:
        """Return ``weights`` for a state: a ``DividedArray`` for each that is divided among processes."""
        return self.weights()

    def _state_averages(self) -> Weights:
        """Return ``ema_weights`` for a state, as ``_state_weights``."""
        return self.ema_weights()

    @abstractmethod
    def _slots(self) -> Slots:
        """Return a copy of the optimizer's slots, by parameter and by torch's name of the slot, with torch's meaning.

        Frozen parameters are left out. A slot with a single number (``step``, NAdam's ``mu_product``) is float64 of
        shape ().
        """

    @abstractmethod
    def _new_slots(self) -> Slots:
        """Return the slots as they would be after an update with zero gradients: their names, shapes and dtypes."""

    @abstractmethod
    def _reactions(self) -> Reactions:
        """Return the numbers that each reactive group depends on, by the group's name."""

    def _unsaved(self) -> Arrays:
        """Return a copy of the buffers that ``state_dict()`` leaves out, by name; none where a subclass has none."""
        return {}

    def _unsaved_averages(self) -> Arrays:
        """Return a copy of the moving average of those buffers, by name; needs ``extras.ema_decay``."""
        return {}

    def _scaler_state(self) -> Mapping[str, float]:
        """Return the numbers of the loss scaler that the next update depends on; empty where there is none."""
        return {}

    @abstractmethod
    def _random(self) -> Arrays:
        """Return the states of the framework's random generators that the model may use, if they can be restored."""

    @abstractmethod
    def _import(self, state: TrainingState) -> None:
        """Take over a state that is known to fit: weights, slots, step, reactions, averages, random states.

        Records of earlier updates are forgotten: ``rates`` and ``grad_norms`` begin at ``state.step``.
        """

    def enter(self, plan: Plan) -> bool:
        """Continue with the plan of the next phase if that is cheaper than a new session; ``import_state`` comes next.

        Returns:
            Whether the session continues. If not, nothing has changed.
        """
        return False

    def unsaved(self) -> Arrays:
        """Return a copy of what ``state_dict()`` leaves out, by name; nothing of what no file can hold."""
        try:
            return self._unsaved()
        except Unsupported:
            return {}

    def check_savable(self) -> None:
        """Refuse a model whose state cannot be saved whole.

        Raises:
            Unsupported: It has something that is no array.
        """
        self._unsaved()

    def without_gradient(self) -> tuple[str, ...]:
        """Return the names of the parameters that this session was to train, and that have had no gradient so far."""
        return ()

    def random_modules(self) -> tuple[str, ...]:
        """Return the names of the modules whose random numbers no state can restore; only OneFlow has such modules."""
        return ()

    def check_logits(self, logits: object, count: int) -> None:
        """Refuse an output of the model that is no floating tensor of shape (images, at least ``num_classes``).

        Raises:
            SpecError: See the function ``check_logits``.
        """
        check_logits(logits, count, self.num_classes, self.logits_dtypes)

    @abstractmethod
    def _update(self, images: Float32, labels: Targets, parts: int) -> StepOutcome:
        """Make one update with a batch that is known to be good."""

    @abstractmethod
    def _losses(self, handles: Sequence[LossHandle]) -> Float64:
        """The losses as numbers, shape (n,), of what ``_update`` gave as ``StepOutcome.loss``."""

    @abstractmethod
    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """Let reactive schedules read the metrics of a step or an epoch.

        Args:
            metrics: The metrics by name.
            unit: ``"step"`` or ``"epoch"``; schedules that read the other are skipped.
        """

    @abstractmethod
    def logits(self, images: Float32, ema: bool = False, shares: bool = False) -> Floats:
        """Return the model's output in evaluation mode, shape (N, classes); training continues unchanged.

        Args:
            images: Shape (N, C, H, W).
            ema: Whether to use the moving average instead of the weights; only with ``extras.ema_decay``.
            shares: Whether all processes ask for the same images now, so that each answers to a part of them.
        """

    @abstractmethod
    def rates(self, start: int, stop: int) -> Float64:
        """Return the rates that updates ``start`` to ``stop - 1`` applied, read back from the framework.

        Returns:
            Shape ``(stop - start, groups)``, in the order of ``plan.groups``.
        """

    @abstractmethod
    def grad_norms(self, start: int, stop: int) -> Float64:
        """Return each group's L2 gradient norm at updates ``start`` to ``stop - 1``, before any clipping.

        It needs ``extras.grad_norms``.

        Returns:
            Shape ``(stop - start, groups)``, in the order of ``plan.groups``; 0 for a group without gradients.
        """

    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """Return a copy of every parameter and buffer, by name."""

    @abstractmethod
    def ema_weights(self) -> dict[str, Array]:
        """Return a copy of the moving average of every parameter and buffer, by name; needs ``extras.ema_decay``.

        The average is that of ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(ema_decay)`` and
        buffers. After the first update it equals the weights; each later update moves it towards them by
        ``1 - ema_decay`` of the distance. Whole-number buffers are those of the model.
        """


def add_seconds(before: float | None, more: float | None) -> float | None:
    """Add two times, each of which may be None because nothing was measured."""
    return before if more is None else more + (before or 0.0)


class Backend(ABC):
    """A way to train: a framework and a mode in which it runs. Subclasses are final.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, or another name that the framework knows.

    Raises:
        SpecError: The device is not available.
    """

    name: ClassVar[str]
    processes: Processes = ALONE
    """Those that train together with this one."""

    can_shard: ClassVar[bool] = False
    """Whether several processes can each hold a part of a model's parameters."""

    @abstractmethod
    def __init__(self, device: str = "auto") -> None: ...

    def join(self, launch: Launch) -> Processes:
        """Connect this process with the others that a launcher has started; ``open`` then trains with them.

        Args:
            launch: Which of them this is.

        Raises:
            Unsupported: The backend cannot train in several processes.
        """
        raise Unsupported(
            f"backend {self.name!r} cannot train in several processes, and this is one of {launch.count}. Use "
            "'torch-eager', or start a single process."
        )

    @abstractmethod
    def build(
        self,
        model: str | Callable[[], Module],
        num_classes: int,
        dropout: float,
        seed: int,
        dtype: Dtype = "float32",
        batch_shape: tuple[int, ...] | None = None,
        other_shapes: Sequence[tuple[int, ...]] = (),
    ) -> Module:
        """Build a new model, by its name or with the user's callable.

        Args:
            model: A model's name, or a callable without arguments that returns an ``nn.Module``.
            num_classes: Outputs of a model known by name.
            dropout: Dropout probability in the head of a model known by name.
            seed: Seed of the framework's own generator, for dropout masks and the draws of the callable.
            dtype: The dtype of parameters and floating-point buffers.
            batch_shape: (N, C, H, W) of the batches, where it is known: a model of another framework is translated for
                such images, and else at its first batch.
            other_shapes: Of batches that have another size of images.

        Raises:
            SpecError: The callable returns something other than a module that this backend can train.
            Unsupported: The callable returns a module of another framework, which cannot be translated.
        """

    def shard(self, plan: Plan, model: Module) -> None:
        """Let each process hold a part of every parameter from now on; all processes call it.

        Args:
            plan: Of the whole run.
            model: From ``build``, with the weights to begin with.

        Raises:
            Unsupported: The backend cannot do so, or not with this model.
        """
        raise Unsupported(f"shard=True: backend {self.name!r} cannot divide a model. Use 'torch-eager'.")

    def share_draws(self, model: Module, batch_shape: tuple[int, ...]) -> None:
        """Let a user's model draw its random numbers from the run's seed, if it can, as it does on other backends.

        Such a model gets an attribute ``shares_masks``, which is true if it draws any.

        Args:
            model: From ``build``, before a session is opened for it.
            batch_shape: Of the batches.
        """
        return

    @abstractmethod
    def load(self, model: Module, weights: Weights) -> None:
        """Copy arrays into parameters and buffers by name; names and shapes were checked."""

    @abstractmethod
    def state(self, model: Module) -> dict[str, Array]:
        """Return a copy of the model's parameters and buffers, by name."""

    def load_unsaved(self, model: Module, arrays: Arrays) -> None:
        """Copy arrays into what ``state_dict()`` leaves out: buffers (``persistent=False``), extra states.

        Args:
            model: From ``build``.
            arrays: By name, from ``TrainingState.unsaved``.
        """
        raise Unsupported(f"backend {self.name!r} cannot load what state_dict() leaves out.")

    def prepare_loss(
        self,
        loss: LossSettings,
        model: Module,
        batch_shape: tuple[int, ...],
        classes: int = 0,
        targets: Array | None = None,
    ) -> LossSettings:
        """Make what sessions of this backend compute the loss with.

        Args:
            loss: What the user has chosen.
            model: From ``build``.
            batch_shape: (N, C, H, W) of the batches.
            classes: How many there are, if the targets are the share of each; 0 if they are class numbers.
            targets: Values or masks of some images, two or more; None for class numbers and shares.

        Raises:
            Unsupported: The loss is a function that this backend cannot compute.
        """
        return loss

    def measure_loss(self, loss: LossSettings, outputs: Floats, targets: Array) -> float:
        """Return the loss of outputs that are known.

        Args:
            loss: From ``prepare_loss``.
            outputs: Shape (N, outputs).
            targets: Class numbers, shape (N,); or the share of each class, shape (N, classes).
        """
        raise Unsupported(f"backend {self.name!r} cannot compute the loss of outputs that are known.")

    def answer(self, model: Module, images: Float32, num_classes: int) -> Floats:
        """Return a model's output in evaluation mode, shape (N, outputs), for a model that is not in training.

        It is computed in the dtypes that the model has, without autocast.

        Args:
            model: From ``build``, with the weights that were loaded into it. It is left in evaluation mode.
            images: Shape (N, C, H, W).
            num_classes: The least number of outputs.

        Raises:
            SpecError: The model answers with something else than a tensor of shape (N, at least ``num_classes``).
        """
        raise Unsupported(f"backend {self.name!r} cannot answer with a model that is not in training.")

    @abstractmethod
    def open(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> Session:
        """Open a session that trains the model with the plan; its first update is ``step``.

        Args:
            plan: The plan of the whole run, or of one of its phases; a plan without phases.
            model: A model from ``build``.
            num_classes: Labels are 0 to ``num_classes - 1``.
            extras: What the session does in addition.
            step: Updates that the run has made before.
            timeline: The plans of all phases of the run, this one among them; empty without phases.
        """

    @abstractmethod
    def compile(self, plan: Plan, model: Module) -> tuple[LoopOptimizer, LoopScheduler]:
        """Make the framework's own optimizer for the model, and a scheduler, for a training loop of the user.

        Raises:
            Unsupported: The plan has phases that no scheduler can go through.
        """

    def list_param_groups(self, plan: Plan, model: Module, divides_always: bool) -> list[dict[str, Any]]:
        """Make the param groups of a plan without phases, for an optimizer of any class.

        Args:
            plan: Groups and hyperparameters.
            model: Whose parameters they have.
            divides_always: Whether parameters that never decay stand apart even where nothing decays.
        """
        raise Unsupported(f"param_groups: backend {self.name!r} makes its own optimizers only: use ll.compile.")

    def build_scheduler(self, plan: Plan, optimizer: LoopOptimizer, model: Module | None) -> LoopScheduler:
        """Make the scheduler of an optimizer that exists.

        Args:
            plan: Rates and groups.
            optimizer: The user's.
            model: What it trains; None only where the plan has no phases and does not clip.
        """
        raise Unsupported(f"scheduler: backend {self.name!r} schedules its own optimizers only: use ll.compile.")

    def try_updates(
        self,
        plan: Plan,
        model: Module,
        batches: Iterable[Any],
        loss_fn: Callable[[Any, Any], Any] | None,
        batch_loss: Callable[[Module, Any], Any] | None,
        seed: int | None,
    ) -> Generator[tuple[float, list[float]], None, None]:
        """Train a model of the user for a while, and give everything back as it was when the generator is closed.

        Args:
            plan: Of known length.
            model: The user's.
            batches: Can be gone through again and again.
            loss_fn: Takes the model's answer and the targets of a batch; None is the cross-entropy.
            batch_loss: Takes the model and a batch, instead.
            seed: Of all random numbers; None leaves the generators as they are.

        Yields:
            The loss of each update, and each group's rate.
        """
        raise Unsupported(f"find_lr with batches: not on {self.name!r}. Use ll.find_lr(model=..., backend=...).")

    def export_loop(self, model: Module, optimizer: LoopOptimizer, scheduler: LoopScheduler) -> TrainingState:
        """Return everything that the next update of a user's training loop depends on.

        Args:
            model: The user's model.
            optimizer: Its optimizer from ``compile``, or the ``oneflow.nn.Graph`` that a plan was attached to.
            scheduler: The scheduler from ``compile`` or from attaching.
        """
        raise Unsupported(f"backend {self.name!r} cannot save the state of a training loop of your own: use ll.run.")

    def import_loop(
        self, state: TrainingState, model: Module, optimizer: LoopOptimizer, scheduler: LoopScheduler
    ) -> None:
        """Continue a user's training loop from a state.

        If the state has no weights, the model keeps its own. Parameters without slots in the state start with new ones.
        """
        raise Unsupported(f"backend {self.name!r} cannot load the state of a training loop of your own: use ll.run.")
