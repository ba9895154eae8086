"""``python -m layered_lr`` is the command ``layered-lr``."""

from __future__ import annotations

import signal
import sys

_TRAINING = ("run", "resume", "compare")


def start() -> None:
    """Run the command; Ctrl-C ends it with 130 from the first import on.

    SIGINT waits during the first imports. NumPy's threads then never hear it: OneFlow puts a handler of its own under
    Python's for a moment, which would end the process with 255 in whatever thread hears the signal.
    """
    before = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if sys.argv[1:] and sys.argv[1] in _TRAINING:
            import numpy  # noqa: F401  # its threads start here
        from layered_lr.cli import console

        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except KeyboardInterrupt:
        sys.stderr.write("\nlayered-lr: interrupted\n")
        sys.exit(130)
    console()


if __name__ == "__main__":
    start()
