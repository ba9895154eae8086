"""The base class of sessions: a session trains a model with a plan. And what goes into it and comes out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from layered_lr.arrays import Array, Arrays, Float32, Float64, Floats, Slots, Targets, Weights
from layered_lr.backend.output_checks import check_logits
from layered_lr.backend.target_checks import check_numbers
from layered_lr.errors import DataError, SpecError, Unsupported
from layered_lr.losses import PLAIN_LOSS, LossSettings
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Metrics, Reactions
from layered_lr.scaling import LossScaling
from layered_lr.state.training_state import TrainingState, find_masks, find_unusual

LossHandle: TypeAlias = Any
"""A loss as an object of the framework, whose number may not be known yet."""


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
    def observe(self, metrics: Metrics, unit: str) -> None:
        """Let reactive schedules read the metrics of a step or an epoch.

        Args:
            metrics: The metrics by name, or the number of each reactive group.
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
