"""Ctrl-C, SIGTERM and SIGHUP: a run with checkpoints writes one more checkpoint, and then ends."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from types import FrameType
from typing import Any

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stop(contextlib.AbstractContextManager["Stop"]):
    """Notes a signal instead of obeying it at once, so that the run can end between two updates.

    A second Ctrl-C is obeyed at once. A signal that is ignored (``nohup``, a background job of a script) stays ignored.
    Outside of the main thread Python handles no signals, and nothing changes.

    Attributes:
        signal: The signal that has come; None as long as none has.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self.signal.name == "SIGHUP":
            _leave_terminal()

    def obey(self) -> None:
        """End the run as the signal would have ended it.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM with code 143, after SIGHUP with 129: as a shell says of a process that it has
                ended.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


def _leave_terminal() -> None:
    """Let output that goes to a terminal go nowhere: the terminal is gone, and writing to it is an error."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nowhere, descriptor)
        os.close(nowhere)
