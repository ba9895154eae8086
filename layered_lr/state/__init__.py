"""The state of a training, without any framework, and the files that hold it."""

from layered_lr.state.checkpoints import CheckpointFolder
from layered_lr.state.state_files import gather_rest, read_state, write_state
from layered_lr.state.training_state import TrainingState

__all__ = ["CheckpointFolder", "TrainingState", "gather_rest", "read_state", "write_state"]
