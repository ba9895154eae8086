"""One optimizer that goes through all phases of a plan, as in a training loop of the user's own."""

from __future__ import annotations

from dataclasses import replace

from layered_lr.arrays import Slots
from layered_lr.errors import Unsupported
from layered_lr.optimizers.handover import complete_slots
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState


def check_single_optimizer(plan: Plan) -> None:
    """Refuse a plan that one optimizer cannot go through.

    Raises:
        Unsupported: A phase switches to another kind of optimizer.
    """
    first = plan.phase_plans[0]
    for number, phase_plan in enumerate(plan.phase_plans, start=1):
        switched = [name for name, kind in first.kinds.items() if phase_plan.kinds[name] != kind]
        for name in switched[:1]:
            old, new = first.kinds[name], phase_plan.kinds[name]
            raise Unsupported(
                f"phase {number} switches from {old} to {new}, and compile makes one optimizer. Compile the phases "
                "before and after the switch one by one, with specs of their own, and take the weights along by the "
                "model; or use ll.run, which switches."
            )


def enter_phase(plan: Plan, state: TrainingState, own: Slots) -> TrainingState:
    """Return a state as it is when the phase of its next update has begun.

    Where a phase begins right there, the state may be from before that: slots that the phase's options do not use are
    dropped, and slots that are missing begin at 0.

    Args:
        plan: Of the loop, with phases or without.
        state: Of the same kind of optimizer.
        own: The slots of the parameters that train in the phase, as a first update would leave them.
    """
    if plan.phase_index(state.step) == plan.phase_index(max(state.step - 1, 0)):
        return state
    return replace(state, slots={**state.slots, **complete_slots(state.slots, own)})
