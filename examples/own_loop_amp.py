"""A training loop of your own on torch: mixed precision, clipping, a checkpoint to go on from."""

import os

import torch
from torchvision.models import mobilenet_v2

import layered_lr as ll

device = "cuda" if torch.cuda.is_available() else "cpu"
steps = int(os.environ.get("MAX_STEPS", "100"))
model = mobilenet_v2(num_classes=10).to(device)

spec = ll.Spec(
    ll.AdamW(lr=1e-3, weight_decay=0.05),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=ll.CosineDecay(warmup_steps=steps // 10),
    clip_grad_norm=1.0,  # the optimizer clips in its step()
)
optimizer, scheduler = ll.compile(spec, model, total_steps=steps)
scaler = torch.amp.GradScaler(device)

for step in range(steps):
    images = torch.randn(8, 3, 32, 32, device=device)  # your DataLoader here
    labels = torch.randint(10, (8,), device=device)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scale = scaler.get_scale()
    scaler.update()
    if scaler.get_scale() >= scale:  # else the scaled loss overflowed, and no update was made
        scheduler.step()
    if step % 50 == 0:
        print(step, loss.item(), scheduler.get_last_lr())

ll.save_state("state", model, optimizer, scheduler)  # load_state goes on from it, in either framework
