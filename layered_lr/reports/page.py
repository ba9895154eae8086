"""The frame of every HTML page: one file that refers to nothing outside it, for wide and narrow screens and paper."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.resources import files

from layered_lr.printed import harmless

BEGINNING = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="layered_lr">'
"""Of every page, by which a page of this library is told from others."""


def page(title: str, heading: str, body: str) -> str:
    """A whole HTML document.

    Args:
        title: Text of the browser's tab.
        heading: Text of the page's heading.
        body: HTML below the heading.
    """
    style = files("layered_lr.reports").joinpath("page.css").read_text(encoding="utf-8")
    return (
        f'{BEGINNING}<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escaped(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><h1>{escaped(heading)}</h1>\n{body}\n</body></html>\n"
    )


def escaped(text: str) -> str:
    """A text as HTML, without characters that do not print: XML has no way to write those."""
    return html.escape(harmless(text))


def section(heading: str, *parts: str) -> str:
    """A heading, and HTML below it."""
    return f"<h2>{escaped(heading)}</h2>\n" + "\n".join(parts)


def folded(summary: str, *parts: str) -> str:
    """HTML that shows its summary until the reader opens it, on paper as on the screen."""
    return f"<details><summary>{escaped(summary)}</summary>\n" + "\n".join(parts) + "</details>"


def paragraphs(lines: Iterable[str], kind: str = "") -> str:
    """A paragraph of each text.

    Args:
        lines: Texts.
        kind: Class of each: ``"soft"`` is smaller and paler.
    """
    opened = f'<p class="{kind}">' if kind else "<p>"
    return "".join(f"{opened}{escaped(line)}</p>" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escaped(line)}</li>" for line in lines) + "</ul>"


def figure(svg: str, narrow_svg: str | None = None) -> str:
    """A drawing in its box.

    Args:
        svg: An ``<svg>`` element.
        narrow_svg: The same, drawn for narrow screens, which show it instead.
    """
    if narrow_svg is None:
        return f"<figure>{svg}</figure>"
    return f'<figure class="for-wide">{svg}</figure>\n<figure class="for-narrow">{narrow_svg}</figure>'
