"""What a backend is: it builds and loads models, and opens sessions that train them under a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Float32, Float64, Int64, Slots, Weights
from layered_lr.errors import DataError, SpecError, Unsupported
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState

Dtype: TypeAlias = Literal["float32", "float64"]


class Extras(NamedTuple):
    """What a session does beside the updates of its plan.

    Args:
        accumulate_steps: The most parts that an update's batch comes in.
        ema_decay: Of the moving average of the weights, 0 to below 1; None keeps none.
        grad_norms: Measure each group's gradient norm at each update.
        seed: Of the dropout masks of models that the library builds.
        autocast: The dtype of the forward pass's matrix products and convolutions, ``"bfloat16"``; None is the model's.
    """

    accumulate_steps: int = 1
    ema_decay: float | None = None
    grad_norms: bool = False
    seed: int = 0
    autocast: str | None = None


NO_EXTRAS = Extras()


class Session(ABC):
    """A model in training under a plan. NumPy in, NumPy out; made by ``Backend.open``.

    Args:
        plan: Rates and groups, without phases: of the whole run, or of one phase of it.
        num_classes: Labels are 0 to ``num_classes - 1``.
        extras: What it does beside; norms are also measured where the plan clips by them.
        step: Updates that the run has made before this session; all counts of updates, in ``rates`` and
            ``grad_norms`` too, are from the start of the run.

    Raises:
        SpecError: A plan with phases: ``phased_session.open_session`` opens a session for each of them.

    ``plan.frozen`` stays as it is: no gradient is computed, nothing decays, and wholly frozen batch normalisations and
    dropouts do what the plan's phase says (``layered_lr.models.nn_modules.set_training``).
    """

    steps_ahead: int = 50
    """Updates that the training loop may ask for before it waits for the first of them. A wait costs little where it
    is rare; an interrupt has to wait for all that was asked for, so that the loop asks for fewer that take long."""

    wants_channels_last: bool = False
    """Whether the training loop is to give images whose memory is NHWC, where it can make them so; their shape stays
    (N, C, H, W). A session takes either; it may say otherwise for its own model."""

    compile_seconds: float | None = None
    """What compiling the model has taken so far; None where nothing is compiled."""

    def __init__(self, plan: Plan, num_classes: int, extras: Extras, step: int = 0) -> None:
        if plan.phases:
            raise SpecError(
                "a session trains one phase: open a plan with phases by layered_lr.backend.phased_session.open_session."
            )
        self.plan = plan
        self.start = self.step = step
        self.num_classes = num_classes
        measured = extras.grad_norms or plan.spec.clip_grad_norm is not None
        self.extras = extras._replace(grad_norms=measured)

    def train_step(self, images: Float32, labels: Int64, parts: int = 1) -> Any:
        """Make one update.

        Args:
            images: Shape (N, C, H, W), float32, ``N / parts`` the same at every call.
            labels: Shape (N,), int64, each in ``0 .. num_classes - 1``.
            parts: How many parts of one size the model takes one after the other; their mean gradient makes the
                update. At most ``extras.accumulate_steps``.

        Returns:
            The batch's mean cross-entropy before the update, as the framework has it: ``losses`` reads it.

        Raises:
            DataError: Lengths that differ, an empty batch, one that does not come in so many parts, or a label out
                of range (OneFlow would answer these with NaN or by aborting the process).
        """
        if not 1 <= parts <= self.extras.accumulate_steps or len(images) % parts:
            raise DataError(
                f"a batch of {len(images)} images in {parts} parts: must be 1 to {self.extras.accumulate_steps} "
                "(accumulate_steps) parts of one size."
            )
        if len(images) == 0 or labels.shape != (len(images),):
            raise DataError(f"a batch of {len(images)} images with labels of shape {labels.shape}: must be as many.")
        if np.minimum.reduce(labels) < 0 or np.maximum.reduce(labels) >= self.num_classes:  # at each step, for speed
            raise DataError(f"labels from {labels.min()} to {labels.max()}: must be 0 to {self.num_classes - 1}.")
        handle = self._update(images, labels, parts)
        self.step += 1
        return handle

    def export_state(self) -> TrainingState:
        """A copy of everything that the next update depends on; waits for the framework."""
        return TrainingState(
            step=self.step,
            optimizer=type(self.plan.plan_at(max(self.step - 1, 0)).spec.optimizer).__name__,
            weights=self.weights(),
            slots=self._slots(),
            reactions=self._reactions(),
            ema={} if self.extras.ema_decay is None else self.ema_weights(),
            random=self._random(),
        )

    def import_state(self, state: TrainingState) -> None:
        """Go on from a state, of this framework or another.

        Parameters without slots in it begin with new ones; a random state of another framework is left alone.

        Raises:
            CheckpointError: Another optimizer's; weights, averages or slots that are missing, too many, of another
                shape or dtype, or not finite; other reactive groups. Then nothing has been changed.
        """
        state.check_optimizer(self.plan.spec.optimizer)
        state.check_finite()
        state.check_reactions(self._reactions())
        state.check_fits(self.weights())
        if self.extras.ema_decay is not None and state.ema:
            state.check_fits(self.weights(), state.ema)
        state.check_slots(self._new_slots())
        self._import(state)
        self.start = self.step = state.step

    def pass_over(self, state: TrainingState) -> None:
        """Go on from a state that this session gave, as if an update had been made that changed nothing but the count.

        Args:
            state: As it was before that update.
        """
        self.import_state(replace(state, step=state.step + 1))

    @abstractmethod
    def _slots(self) -> Slots:
        """A copy of the optimizer's slots, by parameter and by torch's name and meaning of the slot.

        Those of frozen parameters are left out. One number of a parameter (``step``, NAdam's ``mu_product``)
        is float64 of shape ().
        """

    @abstractmethod
    def _new_slots(self) -> Slots:
        """Likewise, as ``_slots`` would be after an update with gradients of zero: names, shapes and dtypes."""

    @abstractmethod
    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        """What reactive schedules have seen, by group."""

    @abstractmethod
    def _random(self) -> Mapping[str, Array]:
        """The states of the framework's random generators that the model may draw from, where it can restore them."""

    @abstractmethod
    def _import(self, state: TrainingState) -> None:
        """Take over a state that is known to fit: weights, slots, step, reactions, averages, random states.

        What was noted of updates before is forgotten: ``rates`` and ``grad_norms`` begin at ``state.step``.
        """

    def enter(self, plan: Plan) -> bool:
        """Go on with the plan of the next phase, where that costs less than another session; ``import_state`` follows.

        Returns:
            Whether it does; if not, all is as before.
        """
        return False

    def random_modules(self) -> tuple[str, ...]:
        """Names of the modules that draw random numbers which no state can bring back; none but in OneFlow."""
        return ()

    def check_logits(self, logits: Any, count: int) -> None:
        """Refuse an answer of the model that is not (images, at least ``num_classes``).

        OneFlow would train on with labels out of range, or abort the process.

        Raises:
            SpecError: Something else than a tensor, or one of another shape.
        """
        shape = tuple(getattr(logits, "shape", ()))
        if len(shape) != 2 or shape[0] != count or shape[1] < self.num_classes:
            what = f"shape {shape}" if shape else f"a {type(logits).__name__}"
            raise SpecError(
                f"model: answers {count} images with {what}; must be ({count}, {self.num_classes}), "
                f"a tensor with a number for each of the data's {self.num_classes} classes."
            )

    @abstractmethod
    def _update(self, images: Float32, labels: Int64, parts: int) -> Any:
        """One update with a batch that is known to be good."""

    @abstractmethod
    def losses(self, handles: Sequence[Any]) -> Float64:
        """The losses that ``train_step`` returned, as numbers; waits for the framework."""

    @abstractmethod
    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """Let reactive schedules that look at each ``"step"`` or each ``"epoch"`` see its metrics."""

    @abstractmethod
    def logits(self, images: Float32, ema: bool = False) -> NDArray[np.floating[Any]]:
        """The model's answer in evaluation mode, shape (N, classes); the model goes on training unchanged.

        Args:
            images: Shape (N, C, H, W).
            ema: With the moving average instead of the weights; only with ``extras.ema_decay``.
        """

    @abstractmethod
    def rates(self, start: int, stop: int) -> Float64:
        """The rates that updates ``start`` to ``stop - 1`` applied, read back from the framework.

        Returns:
            Shape ``(stop - start, groups)``, in the order of ``plan.groups``.
        """

    @abstractmethod
    def grad_norms(self, start: int, stop: int) -> Float64:
        """Each group's L2 gradient norm at updates ``start`` to ``stop - 1``, before any clipping.

        Returns:
            Shape ``(stop - start, groups)``, in the order of ``plan.groups``; 0 for a group without gradients. Only
            with ``extras.grad_norms``.
        """

    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """A copy of every parameter and buffer, by name."""

    @abstractmethod
    def ema_weights(self) -> dict[str, Array]:
        """A copy of the moving average of every parameter and buffer, by name; only with ``extras.ema_decay``.

        As ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(ema_decay)`` and its buffers: after
        the first update the average is the weights; each one after that moves it by ``1 - ema_decay`` of the way.
        Whole-number buffers are the model's own.
        """


def add_seconds(before: float | None, more: float | None) -> float | None:
    """What two things have taken together, each of which may have had nothing to do."""
    return before if more is None else more + (before or 0.0)


class Backend(ABC):
    """A way to train: a framework and how it runs. Subclasses are final.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, as the framework knows it.

    Raises:
        SpecError: A device that is not there.
    """

    name: ClassVar[str]
    compiles_phases: ClassVar[bool] = False
    """Whether ``compile`` honours a plan's phases, or refuses them itself."""

    @abstractmethod
    def __init__(self, device: str = "auto") -> None: ...

    @abstractmethod
    def build(
        self,
        model: str | Callable[[], Any],
        num_classes: int,
        dropout: float,
        seed: int,
        dtype: Dtype = "float32",
    ) -> Any:
        """A new model: one that the library knows by name, or what the user's callable makes.

        Args:
            model: A model's name, or a callable without arguments that returns an ``nn.Module``.
            num_classes: Of a model known by name.
            dropout: Probability in the head of a model known by name.
            seed: For the framework's own generator: dropout masks, and what the callable draws.
            dtype: What parameters and floating buffers are brought to.

        Raises:
            SpecError: The callable makes something else than a module of this framework.
        """

    @abstractmethod
    def load(self, model: Any, weights: Weights) -> None:
        """Copy arrays into parameters and buffers by name; names and shapes are known to fit."""

    @abstractmethod
    def state(self, model: Any) -> dict[str, Array]:
        """A copy of the model's parameters and buffers, by name."""

    @abstractmethod
    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> Session:
        """Put the model under the plan's optimizer, ready to make update ``step``.

        Args:
            plan: Of the whole run, or of one of its phases; without phases.
            model: From ``build``.
            num_classes: As in ``Session``.
            extras: As in ``Session``.
            step: As in ``Session``.
            timeline: The plans of all phases of the run, before this one and after it; empty without phases.
        """

    @abstractmethod
    def compile(self, plan: Plan, model: Any) -> tuple[Any, Any]:
        """The framework's own optimizer for the model, and its scheduler, for a loop of the user's own.

        Raises:
            Unsupported: A plan with phases that no scheduler can go through.
        """

    def export_loop(self, model: Any, optimizer: Any, scheduler: Any) -> TrainingState:
        """The state of a loop of the user's own with what ``compile`` gave; see ``Session.export_state``.

        Args:
            model: The user's.
            optimizer: Its optimizer, or the ``oneflow.nn.Graph`` that a plan was attached to.
            scheduler: That goes with it.
        """
        raise Unsupported(f"backend {self.name!r} cannot save the state of a loop of your own: use ll.run.")

    def import_loop(self, state: TrainingState, model: Any, optimizer: Any, scheduler: Any) -> None:
        """Go on from a state in a loop of the user's own; see ``Session.import_state``.

        A state without weights leaves the model as it is; parameters without slots in it begin with new ones.
        """
        raise Unsupported(f"backend {self.name!r} cannot load the state of a loop of your own: use ll.run.")
