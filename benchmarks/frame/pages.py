"""Puts what was measured into a page, between two marks."""

from __future__ import annotations


def replace_part(text: str, begin: str, end: str, part: str) -> str:
    """Return a page's text with a new part between two marks.

    Args:
        text: Of the page, in which each mark stands once.
        begin: The mark before the part.
        end: The mark after it.
        part: Without the marks.
    """
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
