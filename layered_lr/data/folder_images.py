"""The images of a folder as batches ask for them: decoded in threads, a little ahead, or kept in memory."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from layered_lr.arrays import Array, Float32, Int64
from layered_lr.data.decoding import BadImage, Decoder
from layered_lr.data.folder_listing import Files
from layered_lr.data.normalisation import ChannelSums
from layered_lr.data.stored_images import BLOCK_IMAGES, StoredImages
from layered_lr.errors import DataError
from layered_lr.files import explain_read_errors, read_plain

_BATCHES_AHEAD = 2
_MOST_WORKERS = 16
MEASURED_IMAGES = 20_000  # the most whose pixels are read for mean and deviation


def count_workers() -> int:
    """As many threads as this process has processors, at most 16: each decodes while the others do."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MOST_WORKERS)


@functools.cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked child makes its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="layered_lr-images")


class FolderImages(StoredImages):
    """Images of one part of a folder, uint8 NHWC, all of one size.

    Args:
        files: Where they are.
        decoder: Makes the pixels.
        height: Of each image.
        width: Of each image.
        workers: How many threads decode.
        memory_bytes: If all images together have no more bytes than this, their pixels are kept.

    Attributes:
        files: Where they are.
        decoder: Makes the pixels.
    """

    def __init__(
        self, files: Files, decoder: Decoder, height: int, width: int, workers: int, memory_bytes: int
    ) -> None:
        super().__init__((len(files.names), height, width, decoder.channels), np.uint8)
        self.files, self.decoder, self._workers = files, decoder, workers
        self._kept: Array | None = None
        self._is_kept = np.zeros(0, np.bool_)
        if math.prod(self.shape) <= memory_bytes:
            self._kept = np.empty(self.shape, np.uint8)  # the system gives the memory page by page
            self._is_kept = np.zeros(len(self), np.bool_)
        self._statistics: tuple[Float32, Float32] | None = None
        self._digest = ""

    def read(self, chosen: Int64, epoch: int | None = None) -> Array:
        """Read images; see ``StoredImages.read``."""
        return next(self.stream([chosen], epoch))

    def stream(self, batches: Iterable[Int64], epoch: int | None = None) -> Iterator[Array]:
        """Read one batch after the other; threads decode the next two in the meantime."""
        ahead: deque[tuple[Int64, Array, list[Future[None]]]] = deque()
        for chosen in batches:
            ahead.append(self._begin(chosen))
            if len(ahead) > _BATCHES_AHEAD:
                yield self._finish(*ahead.popleft())
        while ahead:
            yield self._finish(*ahead.popleft())

    def _begin(self, chosen: Int64) -> tuple[Int64, Array, list[Future[None]]]:
        """Let threads decode what is not kept."""
        if self._kept is not None and self._is_kept[chosen].all():
            return chosen, self._kept[chosen], []
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        pool = _pool(self._workers, os.getpid())
        return (
            chosen,
            images,
            [pool.submit(self._read_into, images, place, index) for place, index in enumerate(chosen.tolist())],
        )

    def _finish(self, chosen: Int64, images: Array, futures: list[Future[None]]) -> Array:
        for future in futures:
            future.result()
        if self._kept is not None and futures:
            self._kept[chosen] = images
            self._is_kept[chosen] = True
        return images

    def _read_into(self, images: Array, place: int, index: int) -> None:
        path = self.files.path(index)
        try:
            images[place] = self.decode(index)
        except BadImage as error:
            raise DataError(
                f"{path} cannot be read ({error}). Repair it, or begin anew with broken='skip', which "
                "leaves such images out."
            ) from None

    def decode(self, index: int) -> Array:
        """Decode one image.

        Raises:
            BadImage: It is damaged, or has another size.
        """
        pixels = self.decoder.decode(self.files.path(index))
        if pixels.shape != self.shape[1:]:
            height, width = pixels.shape[:2]
            raise BadImage(f"it is {width}x{height}, where the others are {self.shape[2]}x{self.shape[1]}")
        return pixels

    def find_broken(self, of_all: bool) -> dict[int, str]:
        """Decode the images, and say of which this is not possible, and why; the pixels are kept where they are to be.

        Args:
            of_all: Whether to decode all. Otherwise the first bytes of each say whether it is an image, and those
                that are measured are decoded.
        """
        pool = _pool(self._workers, os.getpid())
        everyone = range(len(self))
        measured = set(self._measured().tolist())
        found = dict(pool.map(lambda index: (index, self._fault(index, of_all or index in measured)), everyone))
        return {index: why for index, why in found.items() if why}

    def _fault(self, index: int, is_decoded: bool) -> str:
        try:
            if is_decoded:
                pixels = self.decode(index)
                if self._kept is not None:
                    self._kept[index] = pixels
                    self._is_kept[index] = True
            else:
                self.decoder.find_size(self.files.path(index))
        except BadImage as error:
            return str(error)
        return ""

    def without(self, left_out: Iterable[int]) -> FolderImages:
        """The images that stay when some are left out, by their numbers."""
        stays = np.setdiff1d(np.arange(len(self)), np.array(sorted(left_out), np.int64))
        smaller = FolderImages(self.files.take(stays), self.decoder, self.shape[1], self.shape[2], self._workers, 0)
        if self._kept is not None:
            smaller._kept, smaller._is_kept = self._kept[stays], self._is_kept[stays]
        return smaller

    def _measured(self) -> Int64:
        """The images that mean and deviation are of: all, or 20,000 at equal distances."""
        count = min(len(self), MEASURED_IMAGES)
        return np.arange(count) * len(self) // count

    def statistics(self) -> tuple[Float32, Float32]:
        """Mean and deviation of each channel, of all images, or of 20,000 where there are more."""
        if self._statistics is None:
            sums, numbers = ChannelSums(self.shape[1:]), self._measured()
            blocks = (numbers[start : start + BLOCK_IMAGES] for start in range(0, len(numbers), BLOCK_IMAGES))
            for images in self.stream(blocks):
                sums.add(images)
            self._statistics = sums.statistics()
        return self._statistics

    def digest(self) -> str:
        """Of names, classes, contents, and how pixels are made of them."""
        if not self._digest:
            pool = _pool(self._workers, os.getpid())
            found = hashlib.blake2b(f"{self.decoder} {self.shape};".encode(), digest_size=16)
            contents = pool.map(self._content_digest, range(len(self)))
            for name, label, content in zip(self.files.names, self.files.labels.tolist(), contents, strict=True):
                found.update(f"{name!r} {label} ".encode() + content)
            self._digest = found.hexdigest()
        return self._digest

    def _content_digest(self, index: int) -> bytes:
        path = self.files.path(index)
        with explain_read_errors(path, "an image"):
            return hashlib.blake2b(read_plain(path, 1 << 30), digest_size=16).digest()
