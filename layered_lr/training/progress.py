"""The progress bar of a run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from layered_lr.backend.session import Session
from layered_lr.plans.plan import Plan
from layered_lr.tools import is_installed
from layered_lr.training.history import History

_REFRESH_SECONDS = 0.2
_MOST_METRICS = 3  # that are shown where there is no accuracy
_MOST_RATES = 4  # that are shown; of more groups, the lowest and the highest


class ProgressBar(contextlib.AbstractContextManager["ProgressBar"]):
    """Shows how far a run is, with loss, accuracy or metrics, and rates, where stderr is a terminal, and in a notebook.

    Args:
        plan: Of the run.
        step: Updates made before.
        is_wanted: False shows nothing.
    """

    def __init__(self, plan: Plan, step: int, is_wanted: bool) -> None:
        self._names = [group.name for group in plan.groups]
        in_notebook = is_in_notebook()
        disable = (
            None if is_wanted and not in_notebook else not is_wanted
        )  # None: tqdm looks whether there is a terminal
        kind = _notebook_bar() if in_notebook and is_wanted else tqdm
        self._bar = kind(total=plan.total_steps or 0, initial=step, unit="step", disable=disable, dynamic_ncols=True)
        self.is_shown = not self._bar.disable
        self._shown_at = 0.0
        self.count_update = self._bar.update  # at each update, for speed

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def go_back(self, step: int) -> None:
        """Show that the run goes on from an earlier update."""
        self._bar.n = step

    def is_due(self) -> bool:
        """Whether it is time to show new numbers."""
        return self.is_shown and time.monotonic() - self._shown_at > _REFRESH_SECONDS

    def show(self, session: Session, history: History, metrics: Sequence[str] = ()) -> None:
        """Show the newest loss that is known, the accuracy and the rates.

        Args:
            session: Who knows the rates.
            history: Of the run.
            metrics: What each evaluation measures beside; the first of them stand where there is no accuracy.
        """
        self._shown_at = time.monotonic()
        if not self.is_shown or not history.losses:
            return
        step = len(history.losses) - 1
        shown = {"loss": f"{history.losses.numbers(step)[0]:.4f}"}
        if len(history.accuracies):
            shown["accuracy"] = f"{history.accuracies.numbers()[-1]:.3f}"
        else:
            measured = [(name, history.logged[name]) for name in metrics[:_MOST_METRICS] if name in history.logged]
            shown |= {name: f"{rows.numbers()[-1][1]:.4g}" for name, rows in measured if len(rows)}
        rates = session.rates(step, step + 1)[0]
        shown |= _shown_rates(self._names, rates.tolist())
        self._bar.set_postfix(shown, refresh=True)


def _shown_rates(names: Sequence[str], rates: Sequence[float]) -> dict[str, str]:
    """The groups' rates; of many groups, the lowest and the highest: a bar has one line."""
    if len(names) <= _MOST_RATES:
        return {name: f"{rate:.2e}" for name, rate in zip(names, rates, strict=True)}
    return {"rates": f"{min(rates):.2e} to {max(rates):.2e}"}


def is_in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose stderr is no terminal and shows a bar all the same."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _notebook_bar() -> Any:
    """The bar of widgets, where these are installed; else the one of text."""
    if not is_installed("ipywidgets"):
        return tqdm
    from tqdm.notebook import tqdm as notebook_bar

    return notebook_bar
