"""What an optimizer saves, as plain numbers."""

from __future__ import annotations

import io
from typing import Any


def saved(framework: Any, state: Any) -> Any:
    """Through a file, as the framework's own tools do it (OneFlow's ``save`` wants a folder: its state is copied)."""
    if framework.__name__ == "torch":
        file = io.BytesIO()
        framework.save(state, file)
        file.seek(0)
        return framework.load(file, weights_only=True)
    if isinstance(state, framework.Tensor):
        return framework.tensor(state.numpy().copy())
    if isinstance(state, dict):
        return {key: saved(framework, value) for key, value in state.items()}
    return [saved(framework, value) for value in state] if isinstance(state, list) else state
