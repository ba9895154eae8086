"""The errors that layered_lr raises; each is also one of Python's own errors, such as ValueError."""

from __future__ import annotations


class LayeredLRError(Exception):
    """The base of all errors of this library: ``except LayeredLRError`` catches all of them.

    Example:
        >>> import layered_lr as ll
        >>> try:
        ...     ll.SGD(lr=-1.0)
        ... except ll.LayeredLRError as error:
        ...     print(error)
        SGD(lr=-1.0): lr must be a finite number >= 0.
    """


class SpecError(LayeredLRError, ValueError):
    """A spec, a recipe or an argument is wrong; this is found before a framework is used."""


class ScheduleEnded(SpecError):
    """A schedule with a fixed number of rates was asked for one after the last."""


class DataError(LayeredLRError, ValueError):
    """A data set is missing, damaged or of the wrong shape."""


class BackendUnavailable(LayeredLRError, ImportError):
    """A backend cannot work on this machine.

    Args:
        backend: The name of the backend.
        reason: Why, as the rest of a sentence that begins with the backend.
        mend: What to do, as a sentence.
    """

    def __init__(self, backend: str, reason: str, mend: str) -> None:
        super().__init__(f"backend {backend!r} {reason}. {mend}")
        self.backend, self.reason, self.mend = backend, reason, mend

    def __reduce__(self) -> tuple[type[BackendUnavailable], tuple[str, str, str]]:
        return type(self), (self.backend, self.reason, self.mend)


class Unsupported(LayeredLRError, NotImplementedError):
    """A backend cannot do something exactly as torch does, and refuses to do something else instead."""


class TrainingDiverged(LayeredLRError, ArithmeticError):
    """The loss became NaN or infinite; the message names the step, the loss and the rates."""


class CallbackError(LayeredLRError, RuntimeError):
    """A callback raised; the message names it, and its own error is the cause (``error.__cause__``)."""


class CheckpointError(LayeredLRError, ValueError):
    """A saved state or result is damaged, was made by something else, or does not fit."""
