"""What every figure has in common: colours, dashes, axes, files, and whether matplotlib can draw at all."""

from __future__ import annotations

import html
import io
import math
import re
from typing import TYPE_CHECKING, Any

from layered_lr.errors import LayeredLRError
from layered_lr.printed import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TICKS = 8

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


_MAKER = "layered_lr"
MARKS = (b"tEXtSoftware\x00" + _MAKER.encode(), b"<dc:title>" + _MAKER.encode() + b"</dc:title>")
"""In the beginning of every .png and every .svg, by which a drawing of this library is told from others."""


def content_of(figure: Any, suffix: str) -> bytes:
    """A figure as a file's content, the same for the same figure; its texts are made harmless."""
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if not text.get_text().isprintable():  # in an SVG, a control character is no XML
            text.set_text(harmless(text.get_text()))
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "layered_lr"}):
        about = {"Creator": _MAKER, "Date": None} if suffix == ".svg" else {"Software": _MAKER}
        figure.savefig(content, format=suffix[1:], metadata=about)
    return content.getvalue()


def inlined(svg: str, label: str, name: str) -> str:
    """The ``<svg>`` element of an SVG file, for an HTML page.

    Args:
        svg: The file's text.
        label: What the drawing shows, for readers who cannot see it.
        name: Begins each id in it, so that several drawings can stand on a page; letters, digits and hyphens.
    """
    text = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(harmless(label))}"', 1)


def plain_number(value: float, _: float = 0.0) -> str:
    """A tick's label: 0.002, 1e-05. One text, where matplotlib would put a power of ten beside the axis."""
    return f"{value:g}"


def use_linear_axis(axes: Axes, top: float) -> None:
    """A vertical axis from zero to ``top``."""
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(plain_number)


def use_log_axis(axes: Axes, lowest: float, highest: float, *, with_zero: bool) -> None:
    """A vertical log axis.

    Args:
        axes: Whose.
        lowest: Of the numbers to show, more than zero.
        highest: Of them.
        with_zero: Whether the axis ends in zero, with all that is smaller than ``lowest`` in between.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    highest = max(highest, 1.5 * lowest)
    if with_zero:
        decades = math.log10(highest / lowest)
        # 0.9: what matplotlib's symlog makes of linscale. A twelfth of the axis is for zero.
        axes.set_yscale("symlog", linthresh=lowest, linscale=max(0.12, 0.09 * decades) * 0.9)
        axes.set_ylim(-0.2 * lowest, highest)
    else:
        axes.set_yscale("log")
        axes.set_ylim(lowest / (highest / lowest) ** 0.03, highest)
    axes.yaxis.set_major_locator(FixedLocator([0.0] * with_zero + _log_ticks(lowest, highest)))
    axes.yaxis.set_major_formatter(plain_number)
    axes.yaxis.set_minor_locator(NullLocator())


def _log_ticks(lowest: float, highest: float) -> list[float]:
    """Powers of ten, or 1, 2, 5 times them where there are few; at most eight."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    for factors in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)):
        powers = range(first, last + 1)
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        shown = [tick for tick in ticks if lowest <= tick <= highest]
        if len(shown) >= 3:
            break
    return shown[:: -(-len(shown) // _MOST_TICKS)] if shown else [lowest, highest]


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
