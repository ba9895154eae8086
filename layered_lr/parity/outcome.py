"""How a backend's process ended: it ran, died, refused, or could not start here."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from layered_lr.errors import LayeredLRError

Status: TypeAlias = Literal["ran", "died", "refused", "unavailable"]


@dataclass(frozen=True)
class Outcome:
    """How a backend's process ended.

    Args:
        backend: Its name.
        status: ``"ran"``; ``"died"`` where its process ended without saying why, ``"refused"`` where it said why,
            ``"unavailable"`` where it does not work on this machine.
        words: The last words that it wrote, or why it refused; empty where it ran.
        exit_code: Of a process that died; negative where a signal ended it.
        error: What a backend raised that refused.
    """

    backend: str
    status: Status
    words: str = ""
    exit_code: int = 0
    error: LayeredLRError | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.status == "ran":
            return f"{self.backend} ran"
        if self.status != "died":
            return f"{self.backend} did not run: {self.words}"
        how = f"exit code {self.exit_code}"
        if self.exit_code < 0:
            how += f", {_signal_name(-self.exit_code)}"
        return f"{self.backend} died ({how}); its last words: {self.words or 'none'}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
