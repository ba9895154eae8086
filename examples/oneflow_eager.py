"""OneFlow in eager mode, in a loop of your own: lr_scale works, though OneFlow itself would ignore it there."""

import os

import oneflow as flow
from flowvision.models import mobilenet_v2

import layered_lr as ll

steps = int(os.environ.get("MAX_STEPS", "100"))
model = mobilenet_v2(num_classes=10)
loss_function = flow.nn.CrossEntropyLoss()

spec = ll.Spec(
    ll.SGD(lr=0.01, momentum=0.9),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=ll.StepLR(step_size=30, gamma=0.5),
)
optimizer, scheduler = ll.compile(spec, model)  # a oneflow.optim.SGD

for step in range(steps):
    images = flow.randn(8, 3, 32, 32)  # your data here
    labels = flow.randint(0, 10, (8,))
    optimizer.zero_grad(set_to_none=True)
    loss = loss_function(model(images), labels)
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 10 == 0:
        print(step, loss.item(), scheduler.get_last_lr())
