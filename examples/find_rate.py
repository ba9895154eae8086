"""Find a rate for a spec whose groups have different ones, see that a batch can be learned, then train at it."""

import os

import torch

import layered_lr as ll


def build() -> torch.nn.Module:
    """A small convolutional network for the embedded digits."""
    first, second = torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.Conv2d(16, 32, 3, stride=2)
    body = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU())
    return torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.Linear(32 * 7 * 7, 10))


spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("0", lr_scale=0.1, name="body"), ll.Group("2", name="head")],
    schedule=ll.CosineDecay(),
)

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
print(ll.overfit(spec, build, batch_size=16, steps=max_steps or 50))

search = ll.find_lr(spec, build, start=1e-3, end=10, steps=max(max_steps or 100, 30), batch_size=16)
print(search)
for name, found in search.suggestions.items():
    print(name, found.lr, dict(found.rates))

if search.suggestions:
    result = ll.run(search.suggestion.spec, model=build, epochs=3, max_steps=max_steps, batch_size=16)
    print(result)
