"""The errors that layered_lr raises; each is also one of Python's own errors, such as ValueError."""

from __future__ import annotations

from layered_lr.printed import harmless


class LayeredLRError(Exception):
    """The base of all errors of this library: ``except LayeredLRError`` catches all of them.

    A message may hold names from a file of somebody else: characters that do not print are written as escapes.

    Example:
        >>> import layered_lr as ll
        >>> try:
        ...     ll.SGD(lr=-1.0)
        ... except ll.LayeredLRError as error:
        ...     print(error)
        SGD(lr=-1.0): lr must be a finite number >= 0.
    """

    said_elsewhere: bool | None = None
    """Whether another process of the run says this error; None where nothing is known of others."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(harmless(each) if isinstance(each, str) else each for each in args))


class SpecError(LayeredLRError, ValueError):
    """A spec, a recipe or an argument is wrong; this is found before a framework is used.

    Example:
        >>> import layered_lr as ll
        >>> try:
        ...     ll.Group("head", lr_scale=-1)
        ... except ll.SpecError as error:
        ...     print(error)
        Group(lr_scale=-1): lr_scale must be a finite number >= 0.
    """

    wrong_flag: tuple[str, str] | None = None
    """The command's flag for the option that is wrong, and what can stand behind it; None where there is no flag."""


class ScheduleEnded(SpecError):
    """A schedule with a fixed number of rates was asked for one after the last."""


class DataError(LayeredLRError, ValueError):
    """A data set is missing, damaged or of the wrong shape.

    Example:
        >>> import layered_lr as ll
        >>> try:
        ...     ll.load_dataset("missing.npz")
        ... except ll.DataError as error:
        ...     print(error)
        missing.npz does not exist, and there is no .npz file in its folder: check the path.
    """


class BackendUnavailable(LayeredLRError, ImportError):
    """A backend cannot work on this machine.

    Args:
        backend: The name of the backend.
        reason: Why, as the rest of a sentence that begins with the backend.
        mend: What to do, as a sentence.

    Example:
        >>> import layered_lr as ll
        >>> error = ll.BackendUnavailable("oneflow-graph", "needs oneflow 0.9", "Use backend 'torch-eager'.")
        >>> print(error)
        backend 'oneflow-graph' needs oneflow 0.9. Use backend 'torch-eager'.
    """

    def __init__(self, backend: str, reason: str, mend: str) -> None:
        super().__init__(f"backend {backend!r} {reason}. {mend}")
        self.backend, self.reason, self.mend = backend, reason, mend

    def __reduce__(self) -> tuple[type[BackendUnavailable], tuple[str, str, str]]:
        return type(self), (self.backend, self.reason, self.mend)


class ToolUnavailable(LayeredLRError, ImportError):
    """A tool of somebody else's is missing or too old: a trainer for which there is a module here, or an exporter.

    Example:
        >>> import layered_lr as ll
        >>> def train_with_lightning(train):
        ...     try:
        ...         return train()
        ...     except ll.ToolUnavailable as error:
        ...         print(error)
        >>> issubclass(ll.ToolUnavailable, ImportError)
        True
    """


class Unsupported(LayeredLRError, NotImplementedError):
    """A backend cannot do something exactly as torch does, and refuses to do something else instead.

    Example:
        >>> import layered_lr as ll
        >>> def train(spec, backends=("oneflow-graph", "oneflow-eager")):
        ...     for backend in backends:
        ...         try:
        ...             return ll.run(spec, backend)
        ...         except ll.Unsupported as error:
        ...             print(error)
        >>> issubclass(ll.Unsupported, NotImplementedError)
        True
    """


class TrainingDiverged(LayeredLRError, ArithmeticError):
    """The loss became NaN or infinite; the message names the step, the loss and the rates.

    Example:
        >>> import layered_lr as ll
        >>> def train(spec):
        ...     try:
        ...         return ll.run(spec)
        ...     except ll.TrainingDiverged as error:
        ...         print(f"give a smaller rate: {error}")
        >>> issubclass(ll.TrainingDiverged, ArithmeticError)
        True
    """


class ProcessLost(LayeredLRError, RuntimeError):
    """Another process of a run of several has ended, so that this one cannot go on; the message says what to do.

    Example:
        >>> import layered_lr as ll
        >>> def train(spec):
        ...     try:
        ...         return ll.run(spec, checkpoints="run")
        ...     except ll.ProcessLost as error:
        ...         print(error)
        >>> issubclass(ll.ProcessLost, RuntimeError)
        True
    """


class CallbackError(LayeredLRError, RuntimeError):
    """A callback raised; the message names it, and its own error is the cause (``error.__cause__``).

    Example:
        >>> import layered_lr as ll
        >>> def train(callback):
        ...     try:
        ...         return ll.run(callbacks=[callback])
        ...     except ll.CallbackError as error:
        ...         print(f"{error} (its own error: {error.__cause__!r})")
        >>> issubclass(ll.CallbackError, RuntimeError)
        True
    """


class CheckpointError(LayeredLRError, ValueError):
    """A saved state or result is damaged, was made by something else, or does not fit.

    Example:
        >>> import layered_lr as ll
        >>> try:
        ...     ll.resume("no-such-run")
        ... except ll.CheckpointError as error:
        ...     print(error)
        no-such-run: ...
    """
