"""What every figure has in common: colours, dashes, files, and whether matplotlib can draw at all."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from layered_lr.errors import LayeredLRError

if TYPE_CHECKING:
    pass


# Okabe and Ito, https://jfly.uni-koeln.de/color, without the yellow, which is too light for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1, 1.2)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1.5)),
    (0, (9, 2)),
    (0, (4, 1, 1, 1, 1, 1)),
)


def content_of(figure: Any, suffix: str) -> bytes:
    """A figure as a file's content, the same for the same figure."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "layered_lr"}):
        date: dict[str, Any] = {"metadata": {"Date": None}} if suffix == ".svg" else {}
        figure.savefig(content, format=suffix[1:], **date)
    return content.getvalue()


def inlined(svg: str) -> str:
    """The ``<svg>`` element of an SVG file, for an HTML page."""
    text = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")


def check_matplotlib() -> None:
    """Make sure that matplotlib can draw.

    Raises:
        LayeredLRError: matplotlib is not installed, or does not work.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise LayeredLRError(f"drawing a plan needs matplotlib, which {why}: pip install 'layered-lr[plot]'") from None
