"""How to run a OneFlow graph in a process of its own: OneFlow aborts the process for much that it does not like."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from tests.support.isolation import run_python

PREAMBLE = '''
import json, sys
import numpy as np
from layered_lr import SGD, Group, Spec, StepLR, resolve
from layered_lr_oneflow.attach import attach
from layered_lr_oneflow.dynamic_updates import DynamicUpdate
from layered_lr_oneflow.runtime import flow

nn = flow.nn
NAMES = ("0", "2", "rest")
GROUPS = [Group("0", lr_scale=0.5), Group("2", momentum=0.5, nesterov=False, weight_decay=0.0)]
rng = np.random.default_rng(0)
X = rng.normal(size=(60, 16, 4)).astype("float32")
Y = rng.normal(size=(60, 16, 3)).astype("float32")

def mlp(framework=nn):
    return framework.Sequential(
        framework.Linear(4, 8), framework.Tanh(), framework.Linear(8, 8), framework.Tanh(), framework.Linear(8, 3)
    )

def start(model):
    """The same weights for every model of one architecture."""
    drawn = np.random.default_rng(1)
    return put(model, [drawn.normal(0, 0.3, tuple(p.shape)) for p in model.parameters()])

def put(model, arrays):
    with flow.no_grad():
        for p, array in zip(model.parameters(), arrays, strict=True):
            p.copy_(flow.tensor(array, dtype=p.dtype))
    return model

class Train(nn.Graph):
    def __init__(self, model, bind):
        super().__init__()
        self.model = model
        bind(self)

    def build(self, x, y):
        loss = ((self.model(x) - y) ** 2).mean()
        loss.backward()
        return loss

def arrays(model):
    return [p.detach().numpy().copy() for p in model.parameters()]

def apart(a, b):
    return max(float(np.abs(x.astype("float64") - y).max()) for x, y in zip(a, b, strict=True))

def batch(step, dtype=flow.float32):
    return flow.tensor(X[step % 60], dtype=dtype), flow.tensor(Y[step % 60], dtype=dtype)

def answer(**values):
    print("ANSWER " + json.dumps(values))

class Unit(nn.Module):
    """The gradient of every parameter is 1."""
    def __init__(self, names=("a", "b")):
        super().__init__()
        self.names = names
        for name in names:
            setattr(self, name, nn.Parameter(flow.zeros(3)))
    def forward(self):
        return sum(getattr(self, name).sum() for name in self.names)
class UnitGraph(nn.Graph):
    def __init__(self, model, updates):
        super().__init__()
        self.model = model
        updates.bind(self)
    def build(self):
        loss = self.model()
        loss.backward()
        return loss
'''


# Each list of arguments finds the random numbers where the preamble has left them.
_EACH = """
import copy
after_preamble = copy.deepcopy(rng)
code = compile(sys.argv[1], "body", "exec")
for arguments in json.loads(sys.argv[2]):
    sys.argv = ["body", *arguments]
    exec(code, {**globals(), "rng": copy.deepcopy(after_preamble)})
"""


def run(body: str, *arguments: str) -> dict[str, Any]:
    """What the script, which goes on from the preamble, answers in a process of its own."""
    return run_each(body, [arguments])[0]


def run_each(body: str, calls: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """What the script answers to each of several lists of arguments, in one process: each start takes seconds."""

    def answers(stdout: str) -> list[str]:
        return [line.removeprefix("ANSWER ") for line in stdout.splitlines() if line.startswith("ANSWER ")]

    done = run_python(
        PREAMBLE + _EACH,
        textwrap.dedent(body),
        json.dumps(calls),
        timeout_seconds=600,
        is_complete=lambda stdout: len(answers(stdout)) == len(calls),
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    said = answers(done.stdout)
    assert len(said) == len(calls)
    return [dict(json.loads(line)) for line in said]
