"""Forward passes of a torch model for batches of several sizes: one program for all of them, wherever there is one.

Passes over three sizes are merged: what differs between them follows the batch. Before a batch of a further size is
computed, a pass over that size says whether the program holds for it. Where it does not (the model's own Python asks
how many images there are), that size gets a program of its own. So no size is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.models.graph import Program
from layered_lr.models.trial import LEAST_BATCH
from layered_lr_torch.trace_merging import PassesDiffer, Recording, are_same, merge_programs

_FEW: Final = (4, 8, 16)
"""Images of a trial, where a model does something else for the fewest, and the example has more."""


class BatchTracer:
    """Traces a model for batches of whatever size is asked for.

    Args:
        record: Records a pass, for a mode (true in training) and a number of images; the last argument says whether it
            is to look for what a pass leaves behind.
        images: How many the example has; of these numbers, the first that the model takes.
        few: How many are enough to try the program of a mode.

    Attributes:
        programs: By mode; ``trace`` makes them.
        constants: Of both.
        images: By mode, how many the example has.
    """

    def __init__(
        self, record: Callable[[bool, int, bool], Recording], images: Sequence[int], few: Mapping[bool, int]
    ) -> None:
        self._record, self._choices, self._few = record, images, few
        self._recordings: dict[bool, dict[int, Recording]] = {}
        self._differing: dict[tuple[bool, int], Recording] = {}
        self.programs: dict[bool, Program] = {}
        self.constants: dict[str, NDArray[Any]] = {}
        self.images: dict[bool, int] = {}

    def trace(self, mode: bool) -> None:
        """Make the program of a mode.

        Raises:
            SpecError: The model fails on the example.
            Unsupported: It does what cannot be translated, or something else each time that it is called.
        """
        first = self._record_first(mode)
        images, few = self.images[mode], self._few[mode]
        # Not in rising order: what counts the passes must not look like a size.
        others = [(3 * images, 2 * images)]
        if few not in (images, 2 * images):
            others.insert(0, (max(2 * images, few), min(2 * images, few)))
        if images > LEAST_BATCH + 1:  # it may do something else with more
            others.append((images // 2, images - 1))
        for sizes in others:
            try:
                recordings = {images: first, **{size: self._record(mode, size, False) for size in sizes}}
                self.programs[mode] = merge_programs(list(recordings.values()), list(recordings), self.constants)
            except (LayeredLRError, PassesDiffer):  # it takes no such batches, or does other things with them
                continue
            self._recordings[mode] = recordings
            return
        again = self._record(mode, images, False)
        try:
            self.programs[mode] = merge_programs([first, again], [images, images], self.constants)
        except PassesDiffer as differs:
            where = "" if differs.node is None else f" ({differs.node.operator}, in {differs.node.describe_place()})"
            raise Unsupported(
                f"model: in {'training' if mode else 'evaluation'} mode its forward pass does other things each time "
                f"that it is called{where}, and cannot be translated. Let the images' shape alone decide what it does."
            ) from None
        self._recordings[mode] = {images: first}

    def _record_first(self, mode: bool) -> Recording:
        failed: LayeredLRError | None = None
        for images in self._choices:
            try:
                made = self._record(mode, images, True)
            except SpecError as error:
                failed = failed or error
                continue
            self.images[mode] = images
            return made
        assert failed is not None
        raise failed

    def forget(self) -> None:
        """Forget the passes for which no program holds: the model may be another one by now."""
        self._differing.clear()

    def holds(self, mode: bool, images: int) -> bool:
        """Whether the program of a mode is right for a number of images, which a pass over so many shows.

        Raises:
            SpecError: The model fails on so many images.
            Unsupported: It does what cannot be translated then.
        """
        recordings = self._recordings[mode]
        if images in recordings:
            return True
        if (mode, images) in self._differing:
            return False
        made = self._record(mode, images, True)
        constants: dict[str, NDArray[Any]] = {}
        if len(recordings) > 1:
            try:
                merged = merge_programs([*recordings.values(), made], [*recordings, images], constants)
            except PassesDiffer:
                pass
            else:
                if are_same(merged, constants, self.programs[mode], self.constants):
                    return True
        self._differing[mode, images] = made
        return False

    def list_trial_sizes(self, mode: bool) -> list[int]:
        """List how many images a program may be tried with: a few, if it holds for them, or the example's."""
        images, few = self.images[mode], self._few[mode]
        for size in (few, *(size for size in _FEW if few < size < images)):
            try:
                if self.holds(mode, size):
                    return list(dict.fromkeys([size, images]))
            except LayeredLRError:  # the model takes no such batch
                continue
        return [images]

    def check_unchanged(self, mode: bool, images: int) -> None:
        """Refuse a model that does other things with the example's number of images than when it was traced.

        Args:
            mode: In which to look.
            images: For which the model is traced now.

        Raises:
            SpecError: It does.
        """
        example = self.images[mode]
        try:
            now = self._record(mode, example, False)
            merge_programs([self._recordings[mode][example], now], [example, example], {})
        except (LayeredLRError, PassesDiffer) as error:
            raise SpecError(
                f"model: for a batch of {images} images the torch model has to be traced again, and it was changed "
                "since it was translated. Translate it again."
            ) from error

    def make_for(self, mode: bool, images: int, constants: dict[str, NDArray[Any]]) -> Program:
        """Make the program of a mode for one number of images alone.

        Args:
            mode: Of the program.
            images: For which ``holds`` has said no.
            constants: Gets those of the program.
        """
        return merge_programs([self._differing[mode, images]], [images], constants)
