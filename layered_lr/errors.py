"""Every error that layered_lr raises on purpose, each also of the type that Python's convention expects."""

from __future__ import annotations


class LayeredLRError(Exception):
    """Base of all errors of this library: ``except LayeredLRError`` catches every one of them."""


class SpecError(LayeredLRError, ValueError):
    """A spec, a recipe or an argument that cannot be right, found before any framework is touched."""


class DataError(LayeredLRError, ValueError):
    """A data set that is missing, damaged or of the wrong shape."""


class BackendUnavailable(LayeredLRError, ImportError):
    """A known backend that cannot work on this machine.

    Args:
        backend: Its name.
        reason: Why, as the rest of a sentence that begins with the backend.
        mend: What to do, as a sentence.
    """

    def __init__(self, backend: str, reason: str, mend: str) -> None:
        super().__init__(f"backend {backend!r} {reason}. {mend}")
        self.backend, self.reason, self.mend = backend, reason, mend

    def __reduce__(self) -> tuple[type[BackendUnavailable], tuple[str, str, str]]:
        return type(self), (self.backend, self.reason, self.mend)


class Unsupported(LayeredLRError, NotImplementedError):
    """Something a backend cannot do exactly as torch does; it refuses instead of doing something else."""


class TrainingDiverged(LayeredLRError, ArithmeticError):
    """The loss became NaN or infinite; the message names step, loss and rates."""


class CallbackError(LayeredLRError, RuntimeError):
    """A callback raised; the message names it, and its own error is the cause (``error.__cause__``)."""


class CheckpointError(LayeredLRError, ValueError):
    """A saved file that is damaged, foreign, or does not fit."""
