"""What a run takes beside its spec, checked before anything is loaded."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import PlainValidator

from layered_lr.errors import SpecError
from layered_lr.files import check_output, one_line
from layered_lr.models.matching import check_pattern
from layered_lr.models.nn_modules import framework_of
from layered_lr.registry import check_name
from layered_lr.training.cadence import cadence
from layered_lr.training.callback import check_callbacks
from layered_lr.training.divergence import OnDivergence
from layered_lr.validation import Decay, Flag, PositiveInt, Probability, Seed, Share, value_class

DEFAULT_EPOCHS = 6
DEFAULT_BATCH_SIZE = 64


def _model(value: Any) -> Any:
    if framework_of(value):
        raise SpecError(
            f"model: got a {type(value).__name__} object; give what builds it, such as model=lambda: make_model(), "
            "so that every run starts anew."
        )
    if isinstance(value, str) and ":" in value:
        return imported(value, "model")
    if isinstance(value, str) or callable(value):
        return value
    raise SpecError(f"model={value!r}: must be the name of a model, or a callable that builds an nn.Module.")


def imported(path: str, what: str) -> Any:
    """The object that ``package.module:name`` stands for.

    Raises:
        SpecError: It cannot be imported, or is not there, or cannot be called.
    """
    module, _, name = path.partition(":")
    try:
        value = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:  # importing a module runs it
        raise SpecError(
            f"{what}={path!r}: must be package.module:name of something to import. "
            f"{type(error).__name__}: {one_line(error)}"
        ) from None
    if not callable(value):
        raise SpecError(f"{what}={path!r}: is a {type(value).__name__}; must be callable.")
    return value


def _backend(value: Any) -> str:
    check_name(value)
    return str(value)


def _device(value: Any) -> str:
    if isinstance(value, str) and (value in ("auto", "cpu") or value.split(":")[0] in ("cuda", "mps", "xpu")):
        return value
    raise SpecError(f"device={value!r}: must be 'auto', 'cpu' or 'cuda' (or 'cuda:1' and the like, on torch).")


def _autocast(value: Any) -> str | None:
    if value is None or value == "bfloat16":
        return value  # type: ignore[no-any-return]
    why = ""
    if value == "float16":
        why = " float16 would need a scaled loss, and updates left out where it overflows: steps without a step."
    raise SpecError(f"autocast={value!r}: must be 'bfloat16'; leave it out for dtype's own arithmetic.{why}")


def _reset(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(check_pattern(pattern, "reset_weights") for pattern in value)
    return (check_pattern(value, "reset_weights"),)


def _path(name: str, value: Any) -> Path | None:
    if value is None or isinstance(value, str | Path):
        return None if value is None else Path(value)
    raise SpecError(f"{name}={value!r} ({type(value).__name__}): must be a path, or None.")


def _writable(value: Any) -> Path | None:
    """A path that a file can be written to: found out before the training, not after it."""
    path = _path("save", value)
    return None if path is None else check_output("save", path)


def _every(value: Any) -> Any:
    cadence(value)
    return value


@value_class
class RunOptions:
    """How to run a spec; see ``layered_lr.run`` for the meaning of each."""

    __called__: ClassVar[str] = "run"

    backend: Annotated[str, PlainValidator(_backend)] = "torch-eager"
    model: Annotated[Any, PlainValidator(_model)] = "mobilenet_v2"
    data: Any = "digits"
    data_root: Annotated[Any, PlainValidator(functools.partial(_path, "data_root"))] = None
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt = DEFAULT_BATCH_SIZE
    seed: Seed = 0
    dropout: Probability = 0.2
    device: Annotated[str, PlainValidator(_device)] = "auto"
    augment: Flag | None = None
    initial_weights: Any = None
    reset_weights: Annotated[Sequence[str], PlainValidator(_reset)] = ()
    accumulate_steps: PositiveInt = 1
    ema_decay: Decay | None = None
    dtype: Literal["float32", "float64"] = "float32"
    autocast: Annotated[Any, PlainValidator(_autocast)] = None
    progress: Flag = True
    save: Annotated[Any, PlainValidator(_writable)] = None
    checkpoint_dir: Annotated[Any, PlainValidator(functools.partial(_path, "checkpoint_dir"))] = None
    checkpoint_every: Annotated[Any, PlainValidator(_every)] = "1 epoch"
    keep: PositiveInt = 3
    keep_best: Flag = True
    on_divergence: OnDivergence = "stop"
    rollback_factor: Share = 0.5
    skip_advances: Flag = False
    callbacks: Annotated[Any, PlainValidator(check_callbacks)] = ()

    def steps_per_epoch(self, train_size: int) -> int:
        """Updates of an epoch: its whole batches, ``accumulate_steps`` to an update; the last may have fewer.

        Raises:
            SpecError: The batch is larger than the training set.
        """
        if self.batch_size > train_size:
            raise SpecError(f"run(batch_size={self.batch_size}): the training set has only {train_size} images.")
        return -(-(train_size // self.batch_size) // self.accumulate_steps)

    def total_steps(self, steps_per_epoch: int) -> int:
        """How many updates the run makes: ``epochs`` of them, and no more than ``max_steps``."""
        if self.epochs is None and self.max_steps is not None:
            return self.max_steps
        by_epochs = (self.epochs or DEFAULT_EPOCHS) * steps_per_epoch
        return by_epochs if self.max_steps is None else min(by_epochs, self.max_steps)

    def to_dict(self) -> dict[str, Any]:
        """The options that can be written down: numbers, strings and lists of strings."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["model"] = _import_path(self.model)
        return {name: _written(value) for name, value in plain.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | Path)


def _import_path(value: Any) -> Any:
    """``package.module:name`` of a callable that can be imported by it; anything else as it is."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    if isinstance(value, str) or not callable(value) or module is None or "<" in name:
        return value
    if module == "__main__":  # of `python -m package.module`: known by name, and not to be run a second time here
        known = getattr(sys.modules[module].__spec__, "name", None)
        return value if known is None else f"{known}:{name}"
    try:
        found = imported(f"{module}:{name}", "model")
    except SpecError:
        return value
    return f"{module}:{name}" if found is value else value


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_written(part) for part in value]
    return str(value) if isinstance(value, Path) else value
