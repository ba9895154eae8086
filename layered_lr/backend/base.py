"""The base class of backends: a backend builds models, loads them and opens sessions that train them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from layered_lr.arrays import Array, Arrays, Float32, Floats, Weights
from layered_lr.backend.processes import ALONE, Launch, Processes
from layered_lr.backend.session import NO_EXTRAS, Extras, Session
from layered_lr.errors import Unsupported
from layered_lr.losses import LossSettings
from layered_lr.models.nn_modules import Module
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState

Dtype: TypeAlias = Literal["float32", "float64"]

LoopOptimizer: TypeAlias = Any
"""An optimizer of torch or OneFlow in a user's training loop, or the ``oneflow.nn.Graph`` that has one."""

LoopScheduler: TypeAlias = Any
"""The scheduler that goes with a ``LoopOptimizer``, or None."""


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
            other_shapes: Of batches that have another size of images, or another number of them.

        Raises:
            SpecError: The callable returns something other than a module that this backend can train.
            Unsupported: The callable returns a module of another framework, which cannot be translated.
        """

    def prepare_to_shard(self) -> None:  # noqa: B027 # only a backend that can divide a model has something to do
        """Build models in main memory from now on, until ``shard`` brings each process's part to its device."""

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

        Such a model gets an attribute ``layered_lr_shares_masks``, which is true if it draws any.

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
        has_shares: bool = False,
    ) -> LossSettings:
        """Make what sessions of this backend compute the loss with.

        Args:
            loss: What the user has chosen.
            model: From ``build``.
            batch_shape: (N, C, H, W) of the batches.
            classes: How many there are, if the targets are class numbers or the share of each.
            targets: Values or masks of some images, two or more; None for class numbers and shares.
            has_shares: Whether the targets are the share of each class.

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

    def narrows(self, work: Callable[[], object]) -> bool:
        """Do some work in float64, and say whether a part of it was seen to be computed in a narrower dtype.

        Not every backend can see it.
        """
        work()
        return False

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
