"""What a run measures: losses that are still in the framework, and tables that the session has recorded."""

from __future__ import annotations

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.backend.session import Session, StepOutcome
from layered_lr.plans.plan import Plan
from layered_lr.training.history import History

_BLOCK_STEPS = 1 << 12


class NotFinite(Exception):
    """A loss that was read is NaN or infinite.

    Args:
        step: Of which update, 0-based.
        loss: What it is.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the loss is {loss}")
        self.step, self.loss = step, loss


class Measurements:
    """Takes losses, rates and norms over from a session into a history, in blocks and as late as possible.

    Args:
        session: Who trains.
        plan: Of the whole run.
        history: Where the numbers go.
        rate_factor: What rollbacks have multiplied the plan's rates with.
    """

    def __init__(self, session: Session, plan: Plan, history: History, rate_factor: float) -> None:
        self.session, self.plan, self.history, self.rate_factor = session, plan, history, rate_factor
        self.pending: list[StepOutcome] = []  # whose losses the framework has and this process has not

    def fetch(self, keep: int = 0) -> None:
        """Wait for the losses of the updates since the last time.

        Args:
            keep: How many of the newest not to wait for.

        Raises:
            NotFinite: One of them is NaN or infinite. None of these losses is kept, and who asks again finds the same.
        """
        if len(self.pending) <= keep:
            return
        done = self.pending[: len(self.pending) - keep]
        losses = self.session.losses(done)
        finite = np.isfinite(losses)
        if not finite.all():
            wrong = int(np.argmin(finite))
            raise NotFinite(len(self.history.losses) + wrong, float(losses[wrong]))
        del self.pending[: len(done)]
        self.history.losses.add(losses)

    def find_fault(self, step: int) -> str:
        """What is not finite in the newest update, in words; empty where all is. Waits for the update.

        Args:
            step: Which one it is, 0-based.
        """
        (loss,) = self.session.losses(self.pending[-1:])
        if not np.isfinite(loss):
            return f"the loss is {loss}"
        finite = np.isfinite(self.session.grad_norms(step, step + 1)).all()
        return "" if finite else "a gradient is NaN or infinite"

    def collect(self) -> None:
        """Take over from the session what it applied, for as many updates as there are losses."""
        self.collect_tables(len(self.history.losses))

    def collect_tables(self, stop: int) -> None:
        """Take over the tables of the updates before ``stop``, in blocks: what is copied on the way stays small."""
        for start in range(len(self.history.rate_factors), stop, _BLOCK_STEPS):
            self._collect_block(start, min(start + _BLOCK_STEPS, stop))

    def _collect_block(self, start: int, stop: int) -> None:
        self.history.rates.add(self.session.rates(start, stop))
        self.history.planned.add(self.rate_factor * self.plan.table(start, stop))
        norms = self.history.grad_norms
        if self.session.extras.grad_norms:
            norms.add(self._unknown_norms(start))
            norms.add(self.session.grad_norms(start, stop))
        elif len(norms):
            norms.add(self._unknown_norms(stop))
        self.history.rate_factors.add(self.rate_factor, stop - start)

    def _unknown_norms(self, stop: int) -> Float64:
        """NaN for those updates before ``stop`` whose norms were not measured: a run that goes on may be changed."""
        return np.full((stop - len(self.history.grad_norms), len(self.plan.groups)), np.nan)

    def rates_of(self, step: int) -> Float64:
        """Each group's rate at one update, shape (groups,)."""
        if step < len(self.history.rates):
            return self.history.rates.numbers(step)[:1].ravel()
        return self.session.rates(step, step + 1).ravel()

    def grad_norms_of(self, step: int) -> Float64:
        """Each group's gradient norm at one update, shape (groups,); NaN where it is not measured."""
        if step < len(self.history.grad_norms):
            return self.history.grad_norms.numbers(step)[:1].ravel()
        if not self.session.extras.grad_norms:
            return np.full(len(self.plan.groups), np.nan)
        return self.session.grad_norms(step, step + 1).ravel()
