"""Names for kinds of arrays, used all over the house."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
"""An array of float64, such as losses or rates."""

Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""

Arrays: TypeAlias = Mapping[str, Array]
"""Arrays by name."""

Weights: TypeAlias = Arrays
"""Every parameter and buffer of a model, by name."""

Slots: TypeAlias = Mapping[str, Arrays]
"""What an optimizer keeps of each parameter: by the parameter's name, then by torch's name of the slot."""
