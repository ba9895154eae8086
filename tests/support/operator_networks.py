"""Small torch networks, each around one family of operators, for tests of the translation to OneFlow.

Each takes a batch of images of shape (N, 4, 8, 8), and has parameters before what it is about, so that gradients go
back through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (6, 4, 8, 8)


class Around(nn.Module):
    """A convolution, and then what a function makes of its output and of the module.

    Args:
        function: Takes the module and the activation, (N, 4, 8, 8).
        parts: Modules that the function uses, by name.
    """

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(4, 4, 1)
        self.function = function
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.gamma = nn.Parameter(torch.tensor(0.7))
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.before(x))


def around(function: Callable[[Any, Tensor], Any], **parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes such a network."""
    return lambda: Around(function, **{name: make() for name, make in parts.items()})


def part(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes a network with one module in it."""
    return around(lambda net, x: net.part(x), part=make)


def positive(x: Tensor) -> Tensor:
    return x.square() + 0.5


def setitem(net: Any, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] = 2.0
    y[:, :2, 2:5] = x[:, 2:, 3:6] * 2
    y[..., 0] += 1
    return y


def padded_by_shape(net: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    if h % 3:
        x = F.pad(x, (0, -w % 3, 0, -h % 3))
    h, w = x.shape[2:]
    windows = x.view(n, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, c)
    mask = torch.zeros(9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -1.0)
    return windows.transpose(1, 2) @ (windows @ windows.transpose(-2, -1) + mask).transpose(1, 2)


def class_token(net: Any, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    token = net.scale[:4].expand(x.shape[0], 1, -1)
    tokens = torch.cat((token, tokens), dim=1)
    return (
        tokens[:, 0]
        + tokens[:, 1:].mean(dim=1)
        + torch.zeros(x.shape[0], 4)
        + x.new_ones(x.shape[0], 1)
        + (torch.arange(4).repeat(x.shape[0], 1))
    )


def counted(net: Any, x: Tensor) -> Tensor:
    if net.training:
        net.count.add_(1)
        net.average = net.average * 0.9 + 0.1 * x.detach().mean((0, 2, 3))
    return x - net.average.reshape(1, -1, 1, 1)


def at_limits(net: Any, x: Tensor) -> Tensor:
    """Functions of numbers at which their gradients jump: 0, 0.5 and 1.5 are exact here."""
    at_zero = net.scale - 0.5
    made = (
        *(net.scale.clamp(0.5, 1.5), net.scale.clamp(min=0.5), net.scale.clamp(max=1.5), F.relu6(net.scale * 4)),
        *(torch.clamp(net.scale, torch.full((8,), 0.5), torch.full((8,), 1.5)), F.celu(at_zero), at_zero**0),
        *(at_zero**net.scale, 0.0**net.scale, F.mish(net.scale * 1000), at_zero.clamp(max=0).abs()),
    )
    return sum(each * x for each in made)


def whole_numbers(x: Tensor) -> tuple[Tensor, ...]:
    whole = (x.detach() * 4).long()
    return (
        *(whole.clamp(min=0.5), whole.clamp(max=1), whole.clamp(-1, 0.5), whole.clamp(torch.full((8,), 0.5))),
        *(whole.floor(), whole.round(), whole.int().ceil(), whole.trunc(), whole.relu(), whole.square()),
        *(torch.logical_and(whole, whole - 1), (x > 0) | True, False ^ (x > 0), (x > 0).bitwise_and_(x < 1)),
        *(torch.cat((x[:, :0], x, x[:, 4:]), 1), F.adaptive_max_pool2d(x, 8, return_indices=True)[0]),
    )


def multiples(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    tenths = (x.detach() * 10).round() / 10
    divisors = torch.tensor([0.1, 0.2, 0.3, -0.1, 0.7, -0.3, 1.0, 0.5], dtype=x.dtype)
    return (
        x + tenths % 0.1,
        x + tenths // 0.1,
        x + tenths % -0.3,
        x + tenths % divisors,
        x + 1 % (x.detach().abs() + 0.1),
        x * torch.div((x.detach() * 9).long(), 4, rounding_mode="floor"),
        x * torch.div((x.detach() * 9).long(), -4, rounding_mode="trunc"),
        x * torch.div((x.detach() * 9).long(), torch.arange(1, 9), rounding_mode="trunc"),
        x + torch.div(x, 0.25, rounding_mode="trunc") + torch.div(x, 0.25, rounding_mode="floor"),
        x * net.training + (x + (not net.training)) * (x > True),
    )


def places_in_images(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    grid = torch.tanh(x[:, :2, :5].permute(0, 2, 3, 1)) * 1.3
    turned = F.affine_grid(x[:, :2, 0, :3], [len(x), 4, 5, 6], align_corners=False)
    volume = F.affine_grid(x[:, :3, 1, :4], [len(x), 1, 2, 3, 4], align_corners=True)
    modes = (("bilinear", "zeros"), ("nearest", "border"), ("bicubic", "reflection"), ("bilinear", "border"))
    sampled = (F.grid_sample(x, grid, mode, padding, align) for mode, padding in modes for align in (True, False))
    whole = F.grid_sample(x.reshape(len(x), 1, 4, 8, 8), volume, padding_mode="border", align_corners=True)
    return *sampled, F.grid_sample(x, turned, align_corners=False), whole, turned, volume


def hidden(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Attention and sums of which a mask hides everything."""
    before = torch.ones(8, 8, dtype=torch.bool).tril(-1)
    added = torch.zeros(8, 8).masked_fill(~before, -torch.inf)
    rows = x.masked_fill(torch.tensor([True, False, False, True]).view(-1, 1, 1), -torch.inf)
    return (
        F.scaled_dot_product_attention(x, x, x, before),
        F.scaled_dot_product_attention(x, x, x, before & (x.detach() > 0)),
        F.scaled_dot_product_attention(x, x, x, added.to(x.dtype)),
        rows.logsumexp(1),
        rows[:, :1].logsumexp(1).exp(),
    )


def small_functions(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Functions that few models call; some of the numbers are not finite."""
    some = torch.where(x > 0.5, math.nan, torch.where(x < -0.5, -math.inf, x))
    flags = torch.stack([some.isinf(), some.isfinite(), some.isposinf(), some.isneginf()]).to(x.dtype)
    row, matrix = x[0, 0, 0], x[0, 0]
    return (
        *(x * flags[0], x * flags.sum(0), some.nan_to_num(0.3, neginf=-2.0), some.nan_to_num().tanh()),
        *(torch.where(x > 0.5, math.nan, x).nansum(1), torch.where(x > 0.5, math.nan, x).nanmean((2, 3))),
        *(x.frac(), torch.logaddexp(x, x.flip(1)), torch.logaddexp(x, x), torch.sinc(x), torch.sinc(x * 0)),
        *(x.sigmoid().logit(), (x.sigmoid() * 2 - 0.5).logit(0.1), x * (x > 0.4).any(), x * (x > -9).all()),
        *(x * (x > 0.4).any(1, keepdim=True), x[:, 0] * (x > -0.3).all(dim=1), x * x.relu().count_nonzero()),
        *(x.prod(1), x[:, :, 0].prod(-1, keepdim=True), (x * net.scale.relu()).relu().prod(2)),
        *(torch.vstack([row, row]), torch.hstack([row, row]), torch.hstack([matrix, matrix]), torch.dstack([row, row])),
        *(torch.vstack([matrix, matrix]), torch.dstack([matrix, matrix]), torch.column_stack([row, matrix])),
        *(torch.rot90(x, turns, (2, 3)) * net.scale for turns in range(4)),
        *(x.rot90(-1, [1, 3]), x.fliplr(), x.flipud(), x.diff(), x.diff(2, 1), *torch.std_mean(x, (2, 3))),
        *(x.unfold(3, 3, 2), x.unfold(1, 2, 1) * net.scale[:2], F.fold(F.unfold(x, 3, 2, 1, 2), 8, 3, 2, 1, 2)),
        F.fold(F.unfold(x, (2, 3)) * 2, (8, 8), (2, 3)),
        *(F.pairwise_distance(x[:, 0], x[:, 1]), F.pairwise_distance(x, x.flip(0), keepdim=True), torch.std_mean(x)[0]),
    )


def recurrent(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    rows = x[:, 0, :2]
    made, (hidden, cell) = net.lstm(rows)
    start = torch.ones(1, x.shape[0], 3, dtype=x.dtype) * 0.1
    cells = net.lstm_cell(rows[:, 0], net.lstm_cell(rows[:, 1]))
    others = net.gru_cell(rows[:, 0]), net.rnn_cell(rows[:, 0], net.rnn_cell(rows[:, 1]))
    return (
        made,
        hidden,
        cell,
        *net.gru(rows.transpose(0, 1), start),
        *net.rnn(rows),
        *net.plain(rows.transpose(0, 1)),
        *cells,
        *others,
    )


def same_statistics(net: Any, x: Tensor) -> Tensor:
    y = net.norm(net.norm(x).tanh())
    return y + net.norm.running_mean.view(-1, 1, 1)


class SharedNorm(nn.Module):
    """Normalises twice with one module, whose statistics both write."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.norm(self.first(x)).tanh()).mean((2, 3)))
        return y


class Remembering(Around):
    """Keeps what no later pass reads, and a table that is the same each time."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: x)
        self.register_buffer("rates", torch.linspace(0.1, 1, 8))
        self.seen: list[Any] = []
        self.last: Any = None
        self.table: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.rates.cos()
        self.last = super().forward(x)
        self.seen.append(tuple(x.shape))
        return self.last * self.table


class Counted(Around):
    def __init__(self) -> None:
        super().__init__(counted)
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("average", torch.zeros(4))


def from_the_end(net: Any, x: Tensor) -> tuple[Any, ...]:
    """Axes and places that are counted from the end, and arguments by their names."""
    y = x * 1
    torch.narrow(input=y, dim=-1, start=-3, length=3).mul_(2)
    y.narrow(1, -2, 2).add_(1)
    y.select(dim=2, index=-1)[:, -1] = 4
    y[0][-1].sub_(x[1, 1])
    y[:, 0][:, 1][:, 2:] = 5
    return (
        *(y, x.narrow(1, -3, 2), x.narrow(dim=-2, start=-8, length=3), torch.select(input=x, dim=-1, index=-8)),
        *(x.split([1, 2, 5], dim=-1), torch.split_with_sizes(x, split_sizes=[3, 5], dim=-2), x.unsafe_chunk(3, -1)),
        *(torch.tensor_split(x, (-5, -2), dim=-1), x.tensor_split(indices=(2, -3), dim=-1), x.tensor_split([3, 1], -1)),
        *(x.hsplit([1, -1]), x.dsplit(4), torch.flip(x, dims=(-1,)), x.flip(dims=[-2, 1]), x.roll(-9, -1)),
        *(torch.swapaxes(x, axis0=-1, axis1=1), x.unflatten(-1, (2, -1)), x.movedim(-1, 1), torch.tile(x, dims=(2, 1))),
        *(x.repeat(repeats=(1, 2, 1, 1)), F.pad(x, (-1, 2, 1, -2)), x[..., -5:-1:2], x[:, -3:-1], x[:, -1, -3:]),
    )


def numbers_in_places(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Functions that put numbers into places, or add them there."""
    whole, places = x.clone(), (x.detach() * 3).long().clamp(0, 7)
    whole[:, ::2] = x[:, 1::2]
    whole[:, 1, 1:7:3] *= 2
    whole[:, [3, 0]] = x[:, :2] * 3
    whole[:, 0, torch.tensor([2, -1]), 1::2] = x[0, 0, 0, :4]
    whole[:, :, torch.tensor([True] * 2 + [False] * 6)] += 1
    products = x.flatten(1) @ x.flatten(1).T
    return (
        *(whole, torch.zeros_like(x).scatter_add_(3, places, x), x.scatter_add(-1, places[..., :2], x[..., 2:4])),
        *(x.index_add(-2, torch.tensor([0, 5, 0]), x[:, :, :3], alpha=-2), x.index_add(3, places[0, 0, 0], x)),
        *(x.index_copy(2, torch.tensor([3, 1]), x[:, :, :2] * 2), x.index_fill(-1, torch.tensor([0, -2]), 3.0)),
        *(x * x.new_tensor([1, 2, 3, 4]).view(4, 1, 1), x.diagonal(-2, -1, -2), torch.diagonal(x, 3, dim1=1, dim2=3)),
        *(torch.linalg.diagonal(x, offset=1), products.diagonal(), products.trace(), torch.diag(x[0, 0, 0], -1)),
        *(torch.diag(x[0, 0]), torch.diag_embed(x[:, 0], 1, -1, -2), (products * 1).fill_diagonal_(-9)),
        *(torch.take_along_dim(x, places[:1, :, :, :1], dim=-1), x.fmod(0.3), torch.fmod(x, x.flip(1) + 2)),
        *(torch.fmod(x.relu(), -0.2), x.sgn() * x, torch.tensordot(x, x[0], dims=([1, -1], [0, 2])), x.inner(x[0])),
        *(
            torch.tensordot(x, x[0, 0], 1),
            torch.linalg.cross(x[:, 1:], x[:1, :3] + 1, dim=1),
            x.roll(5),
            x[0].roll(-70),
        ),
        *(torch.cross(x[:, 1:], x[:, :3], dim=-3), x.argmax() * x, x[0].argmin(keepdim=True) * x),
    )


def moving(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Computes with buffers, and then gives them other numbers, before any backward pass."""
    places, features = x[..., net.places] * 2, x.mean((2, 3))
    answers = (
        *(features @ net.queue.clone().detach(), x / net.deviation.view(-1, 1, 1), torch.where(net.mask, x, x * 2)),
        *(places.square(), F.prelu(x, net.deviation) * net.deviation.view(4, 1).expand(4, 8).unsqueeze(-1)),
    )
    if net.training:
        seen = features.detach()
        net.deviation = 0.9 * net.deviation + 0.1 * x.detach().std((0, 2, 3))
        net.queue.copy_(torch.cat([seen[:2].T, net.queue[:, :-2]], 1))
        net.mask, net.places = ~net.mask, (net.places + 1) % 8
    return answers


class Moving(Around):
    def __init__(self) -> None:
        super().__init__(moving)
        self.register_buffer("queue", torch.linspace(-1, 1, 20).view(4, 5))
        self.register_buffer("deviation", torch.linspace(0.5, 1.5, 4))
        self.register_buffer("mask", torch.arange(8) % 3 > 0)
        self.register_buffer("places", torch.tensor([7, 0, 0, 3]))


def parts_of_buffers(net: Any, x: Tensor) -> Tensor:
    """Changes buffers in parts, and parts of parts."""
    seen = x.detach().mean((0, 2, 3))
    net.table[:, -1] = seen[:3]
    if net.training:
        net.table[0] += 1
        net.table[1, 2:].copy_(seen[:2])
        net.table.narrow(1, -3, 2).mul_(0.5)
        net.table.select(dim=0, index=-1).narrow(dim=0, start=-2, length=2).sub_(seen[2])
        net.table[1][0] = 7
        net.norm.running_mean = net.norm(x).detach().mean((0, 2, 3)) + 1
    return x * net.table.sum() + net.table[:2].mean()


class Parts(Around):
    def __init__(self) -> None:
        super().__init__(parts_of_buffers)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("table", torch.linspace(-1, 1, 12).view(3, 4))


class Found(NamedTuple):
    whole: Tensor
    chosen: Tensor


def canvases(net: Any, x: Tensor) -> dict[str, Any]:
    """Tensors of numbers alone, into which a pass writes, as answers and as buffers."""
    whole, steps = x.new_zeros(x.shape[0], 4, 10, 10), torch.full((8, x.shape[0]), 0.5, dtype=x.dtype)
    whole[:, :, 1:-1, 1:-1] = x
    steps[0] = x[:, 0, 0, 0]
    for step in range(1, 8):
        steps[step] = torch.tanh(steps[step - 1] + x[:, 0, 0, step])
    shifted = torch.zeros_like(x)
    shifted[:-1, :2] = x[1:, :2]
    shifted[1:, 2:] = x[:-1, 2:]
    if not net.training:
        return {"whole": whole, "others": (steps, shifted - net.made.sum() + net.filled.sum())}
    chosen = torch.zeros(x.shape[0], 2, dtype=torch.long)
    chosen[:, 0] = x.mean((2, 3)).argmax(1)
    made, seen = torch.ones(4, dtype=x.dtype), x.detach().mean((0, 2, 3))
    made[1:3] = seen[:2]
    net.made = made
    net.filled = torch.zeros_like(net.filled)
    net.filled[:, 1] = seen
    return {"whole": Found(whole, chosen), "others": [steps, shifted, chosen > 0]}


class Canvases(Around):
    def __init__(self) -> None:
        super().__init__(canvases)
        self.register_buffer("made", torch.zeros(4))
        self.register_buffer("filled", torch.ones(4, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.again = self.first
        self.lists = nn.ParameterList([nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))])

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(torch.tanh(self.second(self.first(x))))
        for one in self.lists:
            x = x * one
        return x


def in_place_without_gradient(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    """What is changed where no gradient is computed keeps the gradient that it had."""
    clipped, rounded, part, halved, scattered = x * 2, x * 3, x * net.scale, x * 4, x * 5
    with torch.no_grad():
        clipped.clamp_(-0.2, 0.2)
        rounded.mul_(4).round_().div_(4)
        part[:, 1:3] = net.scale * 2
        part[:, 0].mul_(0.5)
        halved.relu_()
        scattered.nan_to_num_().copy_(torch.where(scattered > 0, scattered, math.nan)).masked_fill_(
            scattered != scattered, 1
        )
        F.dropout(scattered, 0.5, False, inplace=True)
        same = (F.dropout(x, 0.5, False), F.dropout2d(x, 0.5, False), x.flatten(3), +x, x.type_as(x), x.real)
    return (clipped.square(), rounded.square(), part.square(), halved.square(), scattered.square(), sum(same) * x)


def parts_without_gradient(net: Any, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        second, later = x[:, 1], x[2:].unsqueeze(1)
        heads = [part.squeeze(1) for part in x.unbind(2)[2].chunk(2, 1)]
    third, rest = x[:, 2].detach(), x[:, :, 3:].detach().flatten(1)
    rows = x[:, 1:].detach()[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2)
    return (
        *(
            x - second.unsqueeze(1),
            x[2:] - later[:, 0],
            x - third.unsqueeze(1),
            x.flatten(1)[:, :1] * rest,
            rows @ x[0, :2, 0],
        ),
        *(x * (heads[0][:, :1].unsqueeze(-1) + heads[1][:, :1].unsqueeze(-1)), x * x[:, 3].log_softmax(1).unsqueeze(1)),
        *(x * x[:, 2].amax(1, keepdim=True).unsqueeze(1), x * x[:, 1].softmax(1).unsqueeze(1), x[:, 2:] % 0.3),
        *(x * x[3:, 2:].var((2, 3), unbiased=False)[:, :1, None, None][:1], x[:, 2:].detach() // 0.3 + x[:, 2:]),
    )


def unchanged_without_gradient(net: Any, x: Tensor) -> Any:
    """What gives the numbers of its argument lets no gradient through either, where none is computed."""
    with torch.no_grad():
        same = (
            x.clone(), x[:], x.view(x.shape), x.expand(x.shape), x.permute(0, 1, 2, 3), x.narrow(1, 0, 4),
            F.pad(x, (0, 0)), x.repeat(1, 1, 1, 1), torch.cat([x]), x.contiguous(), x.squeeze(), x.to(x.dtype),
        )  # fmt: skip
    return sum(part * x for part in same)


def other_statistics(net: Any, x: Tensor) -> Any:
    """Batch normalisations whose running statistics are no buffers of theirs, or were changed before."""
    norm = net.norm
    if net.training:
        with torch.no_grad():
            net.zeroed.running_mean.zero_()
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    return (
        x * F.batch_norm(x, mean, variance, norm.weight, norm.bias, net.training).tanh(),
        x * F.batch_norm(x, torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype), training=net.training).tanh(),
        x * net.zeroed(x).tanh(),
    )


class Handing(Around):
    """Hands numbers from buffer to buffer, and returns what one of them held before."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: x)
        self.register_buffer("newer", torch.zeros(4))
        self.register_buffer("older", torch.ones(4))
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Any:
        x = super().forward(x)
        before = self.count.clone()
        if self.training:
            with torch.no_grad():
                self.older.copy_(self.newer)
                self.newer.copy_(x.mean((0, 2, 3)))
                self.count.add_(1)
        return x * (self.older.view(-1, 1, 1) + 2), before.view(2, 2), self.count


class Partly(nn.Module):
    """Gradients stop in places, as in models that freeze or distil a part."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            still = self.a(x)
        return {"out": self.b(x) * still, "aux": (self.a(x).detach() + self.b(x), None)}


class Small(nn.Module):
    """A classifier of images with a batch normalisation, a dropout and a residual."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.b = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(p)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x)).relu()
        y = F.dropout2d(y + y.tanh(), self.drop.p, self.training)
        return self.head(self.drop(y).mean((2, 3)))


class Dropping(nn.Module):
    """A small transformer that drops in several ways: attention weights, activations, whole branches."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 8, 8)
        self.a = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.t = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).flatten(2).transpose(1, 2)
        branch = self.a(x, x, x, need_weights=False)[0]
        if self.training:  # stochastic depth, as torchvision and timm draw it
            branch = branch * branch.new_empty((branch.shape[0], 1, 1)).bernoulli_(0.8).div_(0.8)
        x = x + branch
        return self.head(F.dropout(self.t(x + self.a(x, x, x)[0]).mean(1), 0.3, self.training))


class Words(nn.Module):
    """A model of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.table(words).mean(1))


class Inner(nn.Module):
    """A module that does other things in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x.abs()


class TwoWays(Small):
    """A model with such a module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.inner(x))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small functions": around(small_functions),
    "recurrent": around(
        recurrent,
        lstm=lambda: nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True),
        gru=lambda: nn.GRU(8, 3, bias=False),
        rnn=lambda: nn.RNN(8, 4, nonlinearity="relu", batch_first=True),
        plain=lambda: nn.RNN(8, 4, 2),
        lstm_cell=lambda: nn.LSTMCell(8, 5),
        gru_cell=lambda: nn.GRUCell(8, 5, bias=False),
        rnn_cell=lambda: nn.RNNCell(8, 5),
    ),
    "conv kinds": part(lambda: nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8),
        nn.Conv2d(8, 6, 3, padding=2, dilation=2, groups=2), nn.Conv2d(6, 4, 2, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"), nn.Conv2d(4, 4, 3, padding="valid"))),
    "transposed conv": part(lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), nn.ConvTranspose2d(6, 4, 2, groups=2))),
    "conv 1d and 3d": around(
        lambda net, x: (net.one(x.flatten(2)), net.three(x.unsqueeze(1)), net.pool(x.flatten(2)),
                        net.pool3(x.unsqueeze(1)), F.avg_pool3d(x.unsqueeze(1), 2), F.avg_pool1d(x.flatten(2), 3)),
        one=lambda: nn.Conv1d(4, 3, 5, padding=2, dilation=2), three=lambda: nn.Conv3d(1, 2, 3, padding=1),
        pool=lambda: nn.MaxPool1d(3, 2), pool3=lambda: nn.MaxPool3d(2)),
    "batch norms": around(
        lambda net, x: (net.d1(net.d0(net.d2(x)).flatten(1)),
                        x * F.batch_norm(x, None, None, net.scale[:4], training=True).tanh(),
                        x * F.batch_norm(x, None, None, bias=net.scale[:4], training=True).tanh()),
        d2=lambda: nn.BatchNorm2d(4),
        d0=lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False, eps=1e-3),
        d1=lambda: nn.BatchNorm1d(256, momentum=0.3)),
    "layer norms": around(
        lambda net, x: net.a(x) + net.b(x) + net.c(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + net.d(x),
        a=lambda: nn.LayerNorm(8), b=lambda: nn.LayerNorm((8, 8), elementwise_affine=False),
        c=lambda: nn.LayerNorm(4, eps=1e-3), d=lambda: nn.LayerNorm((4, 8, 8), bias=False)),
    "other norms": part(lambda: nn.Sequential(
        nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LocalResponseNorm(3), nn.RMSNorm(8))),
    "norms of vectors": around(
        lambda net, x: (F.normalize(x, dim=1), x.norm(dim=(2, 3)), torch.linalg.vector_norm(x, 1, dim=1),
                        F.cosine_similarity(x, x.flip(0) * 2 + 1, dim=1), F.normalize(x * 0, dim=1))),
    "max pools": part(lambda: nn.Sequential(
        nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, 2, ceil_mode=True))),
    "avg pools": around(lambda net, x: (
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        F.avg_pool2d(x, 3, 1, divisor_override=5), F.avg_pool2d(x, 3, 2, 1, True, False))),
    "adaptive pools": around(lambda net, x: (
        F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, (3, 5)), F.adaptive_avg_pool2d(x, (4, None)),
        F.adaptive_max_pool2d(x, 2), F.adaptive_max_pool1d(x.flatten(2), 5),
        F.adaptive_avg_pool2d(x, 16), F.adaptive_avg_pool1d(x.flatten(2), 6))),
    "activations": around(lambda net, x: sum(f(x) for f in (
        F.relu, F.relu6, F.silu, F.mish, F.gelu, F.hardswish, F.hardsigmoid, F.hardtanh, F.leaky_relu, F.elu, F.selu,
        F.celu, F.softplus, F.softsign, F.logsigmoid, F.tanhshrink, F.softshrink, F.hardshrink, torch.tanh,
        torch.sigmoid, lambda y: F.gelu(y, approximate="tanh"), lambda y: F.leaky_relu(y, 0.3),
        lambda y: F.elu(y, 0.3), lambda y: F.hardtanh(y, -0.5, 0.7), lambda y: F.softplus(y, 0.3, 5),
        lambda y: F.threshold(y, 0.1, 0.3)))),
    "hard sigmoid": around(lambda net, x: F.hardsigmoid(x)),
    "gelu by tanh": around(lambda net, x: F.gelu(x, approximate="tanh")),
    "activations in place": part(lambda: nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.ReLU(True), nn.Conv2d(4, 4, 1), nn.Hardswish(True), nn.Conv2d(4, 4, 1), nn.SiLU(True),
        nn.Conv2d(4, 4, 1), nn.LeakyReLU(0.1, True), nn.PReLU(4), nn.PReLU(), nn.ReLU6(True))),
    "glu and softmax": around(lambda net, x: (
        F.glu(x, 1), F.softmax(x, 1), F.log_softmax(x, -1), x.logsumexp((2, 3)), torch.softmax(x.flatten(1), 1))),
    "unary": around(lambda net, x: sum(f(positive(x)) for f in (
        torch.exp, torch.log, torch.log2, torch.log10, torch.log1p, torch.expm1, torch.sqrt, torch.rsqrt,
        torch.reciprocal, torch.sin, torch.cos, torch.atan, torch.erf, torch.erfc, torch.abs, torch.neg, torch.floor,
        torch.ceil, torch.round, torch.trunc, torch.sign, torch.square, torch.sinh, torch.cosh))),
    "arithmetic": around(lambda net, x: (
        x + 1, 2 - x, 3 / positive(x), x * net.scale, x / net.gamma, 2 ** x, x ** 3, positive(x) ** 0.5,
        x.detach() // 0.3,
        x % 0.7, x.add(x, alpha=0.5), torch.addcmul(x, x, x, value=0.1), x.lerp(x * 2, 0.3), -x, x * net.gamma,
        torch.maximum(x, x.flip(3)), x.clamp(-0.3, 0.7), x.clamp_min(0.1), x.clamp(max=0.2),
        x.div(0.3, rounding_mode="trunc"),
        x / x.shape[0], 1.5 + x.mul(2).sub_(1).div_(3), torch.rsub(x, 1), torch.minimum(x, net.scale))),
    "logic": around(lambda net, x: (
        torch.where(x > 0, x, x * 0.1), x.masked_fill((x > 0.5) | (x < -0.5), 0.0), x * (x >= 0), (x != 0).float(),
        torch.where((x > 0) & ~(x > 1), x, 0.0), x.tril(), x.triu(1), (x > 0).sum(1), x * (x > 0).float() + (x == 1))),
    "other dtypes": around(lambda net, x: (
        x + torch.arange(8), x * torch.arange(8).float(), torch.arange(8) / 3 * x, x * torch.tensor(2),
        (x > 0).long() + 1.5 * x, x.argmax(1) * 2 + 0.5, x.round().int() * 2, x.to(torch.float32).double() * x)),
    "whole numbers": around(lambda net, x: tuple(x * each for each in whole_numbers(x))),
    "matmuls": around(lambda net, x: (
        x @ x.transpose(2, 3), x @ net.scale, torch.bmm(x[:, 0], x[:, 1]), x[:, 0] @ x[0, 0], net.scale @ x[0, 0],
        x[0, 0] @ net.scale, torch.dot(net.scale, net.scale), net.scale @ x, x[:, :1] @ x, x[0, 0] @ x,
        torch.addmm(net.scale, x[0, 0], x[0, 1], beta=0.5, alpha=2), torch.baddbmm(x[:, 0], x[:, 1], x[:, 2]),
        F.linear(x, x[0, 0], net.scale), F.bilinear(x[:, 0], x[:, 1], x[0, :2]))),
    "einsum": around(lambda net, x: (
        torch.einsum("nchw,nchv->nwv", x, x), torch.einsum("b c h w, w -> b h", x, net.scale),
        torch.einsum("bchw->bc", x), torch.einsum("nchw,w", [x, net.scale]),
        torch.einsum("i,j->ij", net.scale, net.scale))),
    "shapes": around(lambda net, x: (
        x.view(x.size(0), -1), x.flatten(1, 2), x.permute(0, 3, 1, 2), x.transpose(1, 3).contiguous(), x.unsqueeze(-1),
        x[:, :1].squeeze(1), x.unflatten(1, (2, 2)), x.movedim(1, -1), x[:, :1].expand(-1, 5, -1, -1), x.mT,
        x.repeat(1, 2, 1, 3), x.repeat_interleave(2, dim=2), torch.tile(x, (2, 1)), x.reshape(-1, 8).t(),
        x.swapaxes(0, 1), x[:, :1].broadcast_to(x.shape), torch.stack((x, x), 2), x.reshape(x.shape[0] // 2, 2, -1))),
    "splits": around(lambda net, x: (
        *x.chunk(2, 1), *x.chunk(3, 2), *x.split(3, 3), *x.split([1, 3], 1), *x.unbind(1), *x.tensor_split(3, 2),
        torch.cat(x.chunk(2, 1)[::-1], 1), *torch.tensor_split(x, (2, 5), dim=3))),
    "indexing": around(lambda net, x: (
        x[:, 0], x[:, -1], x[..., 1:-1], x[:, :, ::2, 1::3], x[:, None], x[:, [2, 0]], x[:, :, torch.arange(7, -1, -1)],
        x[0], x[:, torch.tensor([[0, 1], [2, 3]])], x[:, :, [0, 1], [2, 3]], x.narrow(2, 1, 3), x.select(1, 2),
        x[:, torch.tensor([True, False, True, True])], x.index_select(3, torch.tensor([5, 1])), x[1:, ..., None, 2],
        x[:, torch.tensor([0, 2]), :, torch.tensor([1, 3])], x[:, [0, 1], None, [2, 3]], x[0, :, torch.tensor([2, 2])],
        net.scale[torch.arange(64).reshape(8, 8) % 8],
        torch.gather(x, 3, torch.zeros(x.shape[0], 4, 8, 2).long() + 1))),
    "moves": around(lambda net, x: (
        x.roll(2, 3), x.roll((1, -2), (2, 3)), x.flip(2), x.flip((2, 3)), torch.roll(x, shifts=(-1,), dims=(1,)),
        F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.channel_shuffle(x, 2))),
    "pads": around(lambda net, x: (
        F.pad(x, (1, 2)), F.pad(x, (1, 2, 0, 3), value=0.3), F.pad(x, (1, 1, 2, 2), mode="reflect"),
        F.pad(x, (2, 1, 0, 1), mode="replicate"), F.pad(x, (1, 2, 3, 1), mode="circular"), F.pad(x, (-1, 2, -2, 0)),
        F.pad(x, (0, 0, 0, 0, 1, 2)), F.pad(x.flatten(2), (3, 2), mode="reflect"),
        F.pad(x.flatten(2), (3, 2), mode="replicate"))),
    "interpolation": around(lambda net, x: (
        F.interpolate(x, scale_factor=2), F.interpolate(x, size=(5, 11)), F.interpolate(x, size=12, mode="bilinear"),
        F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        F.interpolate(x, size=13, mode="bicubic"),
        F.interpolate(x, scale_factor=1.5, mode="bilinear"), F.interpolate(x, scale_factor=0.7),
        F.interpolate(x.flatten(2), size=40, mode="linear"), F.interpolate(x, size=3, mode="bilinear", antialias=True),
        F.interpolate(x, size=5, mode="nearest-exact"), F.interpolate(x.unsqueeze(1), size=5, mode="trilinear"))),
    "reductions": around(lambda net, x: (
        x.sum(), x.mean((2, 3)), x.sum(1, keepdim=True), x.amax((2, 3)), x.amin(1), x.max(1)[0], x.max(2, True).values,
        x.min(3)[0], x.var(1), x.std((2, 3), unbiased=False), x.cumsum(2), torch.var_mean(x, 1)[0], x.max(),
        x.min(1)[1],
        torch.std(x, dim=1, correction=0), x.mean(), x.argmin(3), F.softmax(x, 1).sum(-1))),
    "limits": around(at_limits),
    "multiples": around(multiples),
    "hidden": around(hidden),
    "statistics used twice": around(same_statistics, norm=lambda: nn.BatchNorm2d(4)),
    "remembering": Remembering,
    "masks of fewer axes": around(lambda net, x: (
        torch.where(torch.arange(8) > 3, net.scale, x), torch.where(torch.arange(8) > 3, net.scale[0], x),
        torch.where(torch.arange(8) > 3, net.scale[1], net.scale) * x, x.masked_fill(torch.arange(8) > 5, net.scale[2]),
        torch.where(torch.arange(8) > 3, x, net.scale),
        (x * 1).index_fill(3, torch.tensor([1, 6]), net.scale[0].detach()))),
    "angles": around(lambda net, x: (
        torch.atan2(x, x.flip(3)), torch.atan2(x[:, :1], x), x.relu().atan2(x.flip(2).relu()),
        torch.atan2(x, net.scale[:8]))),
    "running products": around(lambda net, x: (
        x.cumprod(1), torch.cumprod(x.relu(), 3), (x * (x > 0.3)).cumprod(-2), torch.cumprod(x, dim=2, dtype=x.dtype))),
    "places in images": around(places_in_images),
    "distances": around(lambda net, x: (
        torch.cdist(x.flatten(2), x[:, :2].flatten(2)), torch.cdist(x.flatten(1), x.flatten(1)[:1] + 1.0),
        torch.cdist(x.flatten(1), x.flatten(1)), torch.cdist(x[:, 0], x[:, 1], p=1),
        torch.cdist(x[:, 0], x[:, 1], math.inf), torch.cdist(x.permute(0, 2, 3, 1).reshape(-1, 4), net.codes.weight),
        torch.cdist(x[:, 0], net.codes.weight.reshape(15, 8), compute_mode="donot_use_mm_for_euclid_dist")),
        codes=lambda: nn.Linear(4, 30)),
    "unfold": around(lambda net, x: F.unfold(x, 3, padding=1, stride=2)),
    "attention": around(
        lambda net, x: (
            net.first(x.flatten(2), x.flatten(2), x.flatten(2))[0],
            net.second(*x[:, :3].permute(1, 2, 0, 3), need_weights=False,
                       attn_mask=torch.ones(8, 8).triu(1).bool())[0]),
        first=lambda: nn.MultiheadAttention(64, 4, batch_first=True), second=lambda: nn.MultiheadAttention(8, 2)),
    "products of attention": around(lambda net, x: (
        F.scaled_dot_product_attention(x, x * 0.5, x), F.scaled_dot_product_attention(x, x, x, is_causal=True),
        F.scaled_dot_product_attention(  # of a float32 mask and float64 numbers torch 2.14.1 makes wrong answers
            x, x, x, attn_mask=torch.linspace(0, 1, 64, dtype=x.dtype).view(8, 8), scale=0.3),
        F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True))),
    "transformer": around(
        lambda net, x: net.encoder(x.flatten(2).transpose(1, 2)),
        encoder=lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)),
    "padding masks": around(
        lambda net, x: net.encoder(
            x.flatten(2).transpose(1, 2), src_key_padding_mask=(torch.arange(64) >= 48).expand(x.shape[0], 64),
        )[..., 1:],  # of all four the squares have a constant sum
        encoder=lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False)),
    "embeddings": around(
        lambda net, x: (net.table(torch.arange(6)) + x[..., :6, :6], net.padded(torch.tensor([[0, 1], [2, 0]]))),
        table=lambda: nn.Embedding(9, 6), padded=lambda: nn.Embedding(3, 5, padding_idx=0)),
    "assignments": around(setitem),
    "windows by shape": around(padded_by_shape),
    "class token": around(class_token),
    "buffers": Counted,
    "tied": lambda: Tied(),
    "gradients that stop": Partly,
    "in place without gradient": around(in_place_without_gradient),
    "parts without gradient": around(parts_without_gradient),
    "unchanged without gradient": around(unchanged_without_gradient),
    "other statistics": around(other_statistics, norm=lambda: nn.BatchNorm2d(4), zeroed=lambda: nn.BatchNorm2d(4)),
    "handing on": Handing,
    "from the end": around(from_the_end),
    "numbers in places": around(numbers_in_places),
    "buffers that move after they are used": Moving,
    "parts of buffers": Parts,
    "canvases": Canvases,
    "numbers of the batch": around(lambda net, x: (
        x / torch.tensor(x.shape[0]), x - torch.full((8,), x.shape[0]), x * torch.tensor(float(x.shape[0] + 1)))),
    "limits that are tensors": around(lambda net, x: (
        x.clamp(min=net.scale - 1), torch.clamp_max(x, x.mean()), x.clamp(net.gamma * -1, net.scale))),
    "numbers of a vector": around(lambda net, x: (
        *(weight * x for weight in net.scale.softmax(0)), x + net.scale[1] * net.scale.select(0, -2),
        torch.stack([*net.scale.unbind(), net.scale[0]]).sum() * x, torch.stack(tuple(net.scale)).prod() + x)),
    "choices of numbers": around(lambda net, x: (
        x * torch.where(x > 0, 1.0, 0.25), torch.where(x > 0, 1, 2), F.logsigmoid(x * 2000))),
    "spectral norms": part(lambda: nn.Sequential(
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)), nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 3, 1)))),
    "weight norm": part(lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 1), dim=1),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5), dim=None))),
}  # fmt: skip
