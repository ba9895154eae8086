"""A search for a rate as text, and as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layered_lr.errors import SpecError
from layered_lr.reports.page import bullets, escaped, figure, page, paragraphs, section
from layered_lr.reports.tables import ReportTable, wrapped

if TYPE_CHECKING:
    from layered_lr.before.search_view import SearchView

_MEANINGS = {
    "valley": "two thirds down the longest fall",
    "steepest": "where the loss falls fastest",
    "tenth": "a tenth of the rate of the lowest loss",
}


def search_text(search: SearchView) -> str:
    """What was tried, and a row for each suggestion. The table fits the terminal."""
    lines = [wrapped(headline(search))]
    if search.suggestions:
        lines += [suggestion_table(search).text(), wrapped(_meanings(search))]
        first = search.suggestion
        what = "lr" if search.group is None else f"the rate of group {search.group!r}"
        lines.append(wrapped(f"suggested: {what} = {first.lr:.3g} ({first.name}), {_factor(search, first.lr)}."))
    return "\n".join([*lines, *map(wrapped, search.notes)])


def headline(search: SearchView) -> str:
    """What was tried, and why it stopped, in a sentence or two."""
    what = "" if search.group is None else f" for group {search.group!r}"
    many = f", {len(search.seeds)} seeds" if len(search.seeds) > 1 else ""
    if not len(search.lr):
        return f"{search.backend}{what}: no rate could be tried."
    said = f"{search.backend}{what}: {len(search.lr)} rates from {search.lr[0]:.3g} to {search.lr[-1]:.3g}{many}."
    why = [reason for reason in dict.fromkeys(search.stopped) if reason]
    return f"{said} {' '.join(why)}".rstrip()


def suggestion_table(search: SearchView) -> ReportTable:
    """A row for each group, with its rate at each suggestion."""
    found = search.suggestions
    rows = [] if search.group is not None else [["lr", *(f"{each.lr:.3g}" for each in found.values())]]
    for name in dict.fromkeys([*search.scales, *search.fixed]):
        rows.append([name, *(f"{each.rates[name]:.3g}" for each in found.values())])
    return ReportTable(["rate of", *found], rows, frozenset(found))


def _meanings(search: SearchView) -> str:
    return "; ".join(f"{name}: {_MEANINGS[name]}" for name in search.suggestions) + "."


def _factor(search: SearchView, lr: float) -> str:
    return f"{lr / search.base:.3g} times what the spec has ({search.base:.3g})"


def html_text(search: SearchView) -> str:
    """One file with everything in it: the drawing as inline SVG, the suggestions, and the first one's spec as TOML."""
    from layered_lr.before.search_picture import inline_svg

    parts = [
        paragraphs([headline(search), *search.notes]),
        figure(inline_svg(search), inline_svg(search, narrow=True)),
    ]
    if search.suggestions:
        parts.append(section("Suggestions", suggestion_table(search).html(), paragraphs([_meanings(search)], "soft")))
        first = search.suggestion
        try:
            parts.append(
                section(f"The spec at {first.lr:.3g} ({first.name})", f"<pre>{escaped(first.spec.to_toml())}</pre>")
            )
        except SpecError as error:
            parts.append(paragraphs([str(error)], "soft"))
    said = [f"{name}: {value}" for name, value in search.versions.items()]
    if said:
        parts.append(section("Versions", bullets(said)))
    return page("Search for a rate", "Search for a learning rate", "\n".join(parts))
