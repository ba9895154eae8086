"""A run that can be stopped and go on: its state, the files that hold it, and the folder that these live in."""

from layered_lr.state.checkpoints import Checkpoints
from layered_lr.state.state_files import read_state, write_state
from layered_lr.state.training_state import TrainingState
from layered_lr.training.run_folder import RunFolder

__all__ = ["Checkpoints", "RunFolder", "TrainingState", "read_state", "write_state"]
