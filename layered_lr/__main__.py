"""``python -m layered_lr`` is the command ``layered-lr``."""

from layered_lr.cli import console

console()
