"""A OneFlow Graph with native lr_scale and a native schedule for each group; nothing is compiled twice."""

import os

import oneflow as flow
from flowvision.models import mobilenet_v2

import layered_lr as ll

steps = int(os.environ.get("MAX_STEPS", "100"))

spec = ll.Spec(
    ll.SGD(lr=0.01, momentum=0.9),
    groups=[
        ll.Group("features", lr_scale=0.1),
        ll.Group("classifier", schedule=ll.CosineAnnealingLR(T_max=steps)),
    ],
    schedule=ll.StepLR(step_size=30, gamma=0.5),
)


class TrainGraph(flow.nn.Graph):
    """One update for each call."""

    def __init__(self, model: flow.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss_function = flow.nn.CrossEntropyLoss()
        self.scheduler = ll.attach(spec, self, model, total_steps=steps)

    def build(self, images: flow.Tensor, labels: flow.Tensor) -> flow.Tensor:
        """The loss."""
        loss = self.loss_function(self.model(images), labels)
        loss.backward()
        return loss


graph = TrainGraph(mobilenet_v2(num_classes=10))
print(graph.scheduler.plan.lowering("oneflow-graph"))  # which schedules are native
for step in range(steps):
    loss = graph(flow.randn(8, 3, 32, 32), flow.randint(0, 10, (8,)))  # the first call compiles
    if step % 10 == 0:
        print(step, loss.item())
