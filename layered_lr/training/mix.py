"""Mixup and CutMix, as an option of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from layered_lr.errors import SpecError
from layered_lr.training.option import TRAINING, Refused, number, option, option_class

_LARGEST = 1e4  # of alpha; from there on all shares are 1/2
_alpha = number("a number from 0 to 10000", lambda value: 0 <= value <= _LARGEST)


@option_class
class Mix:
    """Mixup and CutMix: each training image is mixed with another one of its update, and so are their labels.

    Mixup adds up two images; CutMix puts a box of one into the other. The share of the label that stays is that of the
    pixels. It is drawn for each update from a Beta distribution with both parameters alpha; 0 leaves the method out.
    With both, each update takes one of them at random. The partner is the image before in the update, and the numbers
    are those of torchvision's ``v2.MixUp`` and ``v2.CutMix``. The test set is not mixed, and no accuracy is measured in
    training. Sources: Zhang et al. 2017 (Mixup), Yun et al. 2019 (CutMix).

    Example:
        >>> import layered_lr as ll
        >>> ll.Mix(mixup=0.2)
        Mix(mixup=0.2, cutmix=0.0, probability=1.0)
    """

    __called__: ClassVar[str] = "Mix"

    mixup: float = option(
        default=0.0,
        help="Alpha of Mixup, such as 0.2: the larger, the nearer both shares are to 1/2. 0 is none.",
        check=_alpha,
        meaning=TRAINING,
        flag="--mixup",
        metavar="ALPHA",
        kind="float",
    )
    cutmix: float = option(
        default=0.0,
        help="Alpha of CutMix, such as 1.0; 1 draws all shares alike. 0 is none.",
        check=_alpha,
        meaning=TRAINING,
        flag="--cutmix",
        metavar="ALPHA",
        kind="float",
    )
    probability: float = option(
        default=1.0,
        help="The share of the updates that are mixed.",
        check=number("a number from 0 to 1", lambda value: 0 <= value <= 1),
        meaning=TRAINING,
        flag="--mix-probability",
        metavar="SHARE",
        kind="float",
    )

    def __post_init__(self) -> None:
        """Refuse a mix of nothing.

        Raises:
            SpecError: Both alphas are 0.
        """
        if not self.mixup and not self.cutmix:
            raise SpecError("Mix: mixup and cutmix are both 0, which mixes nothing. Give one, such as mixup=0.2.")

    @staticmethod
    def of(value: Any) -> Mix | None:
        """What ``mix=...`` stands for: nothing, the value itself, or a table of its fields.

        Example:
            >>> Mix.of({"cutmix": 1.0}) == Mix(cutmix=1.0)
            True
        """
        if value is None or isinstance(value, Mix):
            return value
        if isinstance(value, Mapping):
            return Mix(**value)
        raise Refused("ll.Mix(mixup=..., cutmix=...), or None")
