"""``TensorBoard``: a log that TensorBoard shows; it needs no framework, so that OneFlow's runs have it too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layered_lr.counts import whole_number
from layered_lr.errors import CheckpointError
from layered_lr.files import as_path
from layered_lr.printed import harmless
from layered_lr.training.evaluation import WrongAnswers
from layered_lr.training.events import EvaluationEvent
from layered_lr.training.loggers.event_files import EventFile, check_folder, check_tensorboard, last_step_of
from layered_lr.training.loggers.group_norms import weight_norms, weights_by_group
from layered_lr.training.loggers.logger import Logger
from layered_lr.training.loggers.rows import Row
from layered_lr.training.run_handle import RunHandle
from layered_lr.yes_or_no import check_yes_or_no

_WRONG = "wrong_answers"


class TensorBoard(Logger):
    """Writes a log for TensorBoard: ``tensorboard --logdir FOLDER``.

    It holds of each update ``loss``, ``rate/GROUP`` and ``grad_norm/GROUP``; after each evaluation ``accuracy``,
    ``ema_accuracy``, ``weight_norm/GROUP``, test images that the model gets wrong (``wrong_answers/1``, …) with a text
    that says what they are, and where asked for ``weights/GROUP`` as a histogram; and ``logged/NAME``. A step is the
    0-based update; what was measured after an update has its step. A run that goes on continues the log: TensorBoard
    drops what was logged of the updates that are made again.

    Args:
        folder: Of this run alone; made where it is missing. A log of this library that is there already is dropped.
        grad_norms: Whether to measure the gradient norms.
        weight_norms: Whether to log the norm of each group's weights after each evaluation.
        histograms: Whether to log the distribution of each group's weights after each evaluation.
        wrong_answers: How many images to show; 0 shows none. The first ten batches of the test set are looked at.

    Raises:
        ToolUnavailable: TensorBoard is not installed.
        SpecError: An argument is wrong, or the folder holds event files of another program.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> options = dict(model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = ll.run(ll.Spec(ll.SGD(0.1)), callbacks=[ll.TensorBoard(folder)], **options)
    """

    def __init__(
        self,
        folder: str | Path,
        grad_norms: bool = True,
        weight_norms: bool = True,
        histograms: bool = False,
        wrong_answers: int = 8,
    ) -> None:
        super().__init__(grad_norms)
        self._weight_norms = check_yes_or_no("TensorBoard", "weight_norms", weight_norms)
        self._histograms = check_yes_or_no("TensorBoard", "histograms", histograms)
        self._most_wrong = whole_number("wrong_answers", wrong_answers, 0)
        self.asks_model = self._weight_norms or self._histograms or self._most_wrong > 0
        self.folder = as_path("TensorBoard: folder", folder).absolute()
        check_tensorboard()
        check_folder(self.folder)
        self._file: EventFile | None = None

    def _open(self, run: RunHandle) -> int:
        check_folder(self.folder)
        self._close()
        known = last_step_of(self.folder, "loss") + 1 if run.step else 0
        try:
            self._file = EventFile(self.folder, min(known, run.step))
        except OSError as error:
            raise self._failure(error) from None
        return min(known, run.step)

    def _go_back(self, run: RunHandle) -> int:
        if self._file is not None:
            self._file.begin(run.step)
        return run.step

    def _add(self, rows: Sequence[Row]) -> None:
        if self._file is None:
            return
        try:
            for row in rows:
                self._file.add_numbers(row.step, row.values)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Log what an evaluation shows: accuracies, norms, histograms, wrong answers."""
        super().on_evaluation(event)
        if self._file is None:
            return
        step, run = max(event.run.step - 1, 0), event.run
        try:
            if self._weight_norms or self._histograms:
                groups = weights_by_group(run)
                if self._weight_norms:
                    self._file.add_numbers(step, weight_norms(groups))
                if self._histograms:
                    for name, arrays in groups.items():
                        self._file.add_histogram(step, f"weights/{name}", np.concatenate([*map(np.ravel, arrays)]))
            if self._most_wrong:
                self._show_wrong(step, run.wrong_answers(self._most_wrong))
        except OSError as error:
            raise self._failure(error) from None

    def _show_wrong(self, step: int, wrong: WrongAnswers) -> None:
        assert self._file is not None
        lines = ["| image | is | answered |", "|---|---|---|"]
        shown = zip(wrong.images, wrong.labels.tolist(), wrong.answers.tolist(), strict=True)
        for number, (image, label, answer) in enumerate(shown, start=1):
            self._file.add_image(step, f"{_WRONG}/{number}", pixels_of(image))
            lines.append(f"| {number} | {_class(wrong, label)} | {_class(wrong, answer)} |")
        self._file.add_text(step, _WRONG, "\n".join(lines) if len(lines) > 2 else "none in the first batches")

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _failure(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.folder}: the log cannot be written: {error.strerror or error}.")


def _class(wrong: WrongAnswers, number: int) -> str:
    """A class by its name, or by its number where it has none, as a cell of a table in Markdown."""
    names = wrong.class_names
    name = f"{number}" if names is None or number >= len(names) else names[number]
    return harmless(name, keep="").replace("|", "\\|")


def pixels_of(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """An image of a data set as pixels to show, shape (H, W, 3).

    Args:
        image: uint8 of shape (H, W, C), or float of shape (C, H, W), which is stretched from its least to its largest
            number. Of other than one or three channels the first is shown.
    """
    if image.dtype == np.uint8:
        pixels = image
    else:
        values = np.nan_to_num(np.moveaxis(image, 0, -1).astype(np.float64))
        low, high = float(values.min()), float(values.max())
        pixels = np.rint((values - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
    if pixels.shape[-1] != 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=-1)
    return np.ascontiguousarray(pixels)
