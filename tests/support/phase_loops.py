"""A loop of a user's own under a spec with phases, on either framework."""

from __future__ import annotations

from typing import Any

import layered_lr as ll
from tests.support.timelines import batch, net, start

GROUPS = [ll.Group("head", lr_scale=2.0), ll.Group("norm", schedule=ll.StepLR(2))]
HEAD_LATE = [ll.Phase(3, frozen="head"), ll.Phase(6, trained="head"), ll.Phase()]
TOTAL = 9
PLATEAU = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.5, unit="step")
SPECS = {
    "SGD": ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, phases=HEAD_LATE, clip_grad_norm=0.5),
    "NAdam": ll.Spec(ll.NAdam(0.01), GROUPS, phases=HEAD_LATE),
    "Adagrad": ll.Spec(ll.Adagrad(0.1, lr_decay=0.1, initial_accumulator_value=0.1), GROUPS, phases=HEAD_LATE),
    "options": ll.Spec(
        ll.SGD(0.05, momentum=0.8), GROUPS, no_weight_decay="1d",
        phases=[
            ll.Phase(2),
            ll.Phase(4, optimizer=ll.SGD(0.05), weight_decay=0.1, frozen="norm", batch_norm="moving"),
            ll.Phase(7, optimizer=ll.SGD(0.05, momentum=0.5, dampening=0.2), frozen="body.bias"),
            ll.Phase(clip_grad_value=0.01),
        ],
    ),
    "slots": ll.Spec(
        ll.Adam(0.01), GROUPS,
        phases=[
            ll.Phase(3, frozen="head"),
            ll.Phase(5, optimizer=ll.Adam(0.01, betas=(0.8, 0.99), amsgrad=True)),
            ll.Phase(weight_decay=0.1),
        ],
    ),
    "reactive": ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS, PLATEAU,
        phases=[ll.Phase(3, frozen="body"), ll.Phase(5, schedule=ll.Constant()), ll.Phase(counts_from="run")],
    ),
    "reactive anew": ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS, PLATEAU,
        phases=[
            ll.Phase(3, optimizer=ll.SGD(0.05, momentum=0.9)),
            ll.Phase(5, frozen="head"),
            ll.Phase(weight_decay=0.1),
        ],
    ),
}  # fmt: skip
NEAR = 1e-6  # float64; OneFlow's normalisation has its momentum in float32


class Loop:
    """A loop as the README shows it, in float64; reactive schedules see the loss."""

    def __init__(self, framework: Any, spec: ll.Spec, seed: int = 0) -> None:
        self.framework = framework
        self.model = net(framework).to(framework.float64)
        named = dict(self.model.named_parameters())
        with framework.no_grad():
            for name, array in start(self.model, seed).items():
                named[name].copy_(framework.tensor(array, dtype=framework.float64))
        self.optimizer, self.scheduler = ll.compile(spec, self.model, TOTAL, 4)

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """What ``save_state`` and ``load_state`` take."""
        return self.model, self.optimizer, self.scheduler

    def train(self, steps: range) -> list[float]:
        """The losses of these updates."""
        losses = []
        for step in steps:
            self.model.train()  # as many loops do: what a phase holds still stays so
            images, labels = map(self.framework.tensor, batch(step))
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.framework.nn.functional.cross_entropy(self.model(images.to(self.framework.float64)), labels)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(float(loss.detach().numpy()))
            if self.scheduler.plan.reacting_units:
                self.scheduler.step(metrics=losses[-1])
        return losses

    def weights(self) -> dict[str, Any]:
        """A copy."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.model.state_dict().items()}
