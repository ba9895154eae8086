"""layered_lr's backends ``torch-eager`` and ``torch-compile``."""
