"""One optimizer of torch whose param groups are updated in different ways: by Muon, AdamW, and so on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, final

import torch
from torch.optim import Optimizer

from layered_lr.errors import CheckpointError, SpecError
from layered_lr_torch.fused_kernels import KERNELS, FusedStep, is_exact
from layered_lr_torch.grouped_steps import let_update_directly, update_shortly
from layered_lr_torch.late_steps import SHARES_STATE
from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.torch_types import Closure, Options, ParamGroup

KIND: Final = "optimizer"
"""The key of a param group that names the kind of its optimizer."""

Kinds: TypeAlias = Mapping[str, tuple[Any, Options]]
"""By the name of each kind: its class, and the arguments of the class's constructor."""


@final
class MixedOptimizer(Optimizer):
    """An optimizer of several kinds, in the format of torch's own optimizers.

    Each param group names its kind under ``"optimizer"``, and has the hyperparameters of this kind only. The state of
    a parameter is that of its kind. So ``param_groups``, ``state`` and ``state_dict()`` are as if all kinds had put
    theirs together. ``step`` lets the class of each kind update its param groups; the results are bitwise those of
    separate optimizers. A param group that is added without a kind has the first one.

    Args:
        groups: Param groups, each with its kind.
        kinds: The kinds; the first one is the usual one.
    """

    def __init__(self, groups: Iterable[ParamGroup], kinds: Kinds) -> None:
        self._kinds = dict(kinds)
        self._begin_members()
        super().__init__(groups, {"lr": kinds[self.usual_kind][1]["lr"]})
        self._finish()

    @property
    def usual_kind(self) -> str:
        """The name of the kind of param groups that name none."""
        return next(iter(self._kinds))

    def find_class(self, group: ParamGroup) -> type[Optimizer]:
        """Return the class that updates a param group."""
        found: type[Optimizer] = self._kinds[group[KIND]][0]
        return found

    def add_param_group(self, param_group: ParamGroup) -> None:
        """Add a param group, as torch's optimizers do.

        Args:
            param_group: May name its kind under ``"optimizer"``.

        Raises:
            SpecError: There is no such kind in this optimizer.
            ValueError: The kind's class refuses the parameters or a hyperparameter.
        """
        kind = param_group.get(KIND, self.usual_kind)
        if kind not in self._kinds:
            raise SpecError(
                f"param_group[{KIND!r}]={kind!r}: this optimizer has {', '.join(self._kinds)}. Use one of these, or "
                "compile a spec in which a group has the other one."
            )
        cls, arguments = self._kinds[kind]
        alone: Any = cls([{**arguments, **param_group, KIND: kind}], **arguments)  # checks it, and fills in the rest
        super().add_param_group(alone.param_groups[0])
        self.state.update(alone.state)

    def step(self, closure: Closure | None = None) -> Any:
        """Make one update.

        Args:
            closure: Evaluates the model once more and returns the loss.

        Returns:
            What the closure returns; None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            CheckpointError: A param group in it is of another kind.
            ValueError: It has other param groups, or other numbers of parameters in them.
        """
        groups = list(state_dict["param_groups"])
        for number, (own, given) in enumerate(zip(self.param_groups, groups, strict=False)):
            kind = given.get(KIND, own[KIND])
            if kind != own[KIND]:
                raise CheckpointError(
                    f"state_dict: its param group {number} is of {kind}, the optimizer's is of {own[KIND]}: give both "
                    "the same groups."
                )
            groups[number] = {**given, KIND: kind}
        state_dict = {**state_dict, "param_groups": groups}
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kinds": self._kinds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state: of a copy, or from ``load_state_dict``."""
        super().__setstate__(state)
        self._begin_members()
        self._finish()

    def _begin_members(self) -> None:
        """Make an optimizer of each kind; it updates the param groups that it is shown."""
        self._members: dict[str, Any] = {}
        self._direct_steps: dict[str, FusedStep | None] | None = None
        for kind, (cls, arguments) in self._kinds.items():
            member: Any = cls([torch.nn.Parameter(torch.zeros(1, 1))], **arguments)
            vars(member)[SHARES_STATE] = True
            self._members[kind] = member

    def _finish(self) -> None:
        vars(self)["_step_supports_amp_scaling"] = False  # a GradScaler has to unscale
        let_update_directly(self, _update_directly)

    def update(self) -> None:
        """Make one update whose gradients are there, without hooks."""
        if self._direct_steps is None:
            self._direct_steps = {kind: self._make_direct_step(kind) for kind in self._kinds}
        groups: dict[str, list[ParamGroup]] = {kind: [] for kind in self._kinds}
        for group in self.param_groups:
            groups[group[KIND]].append(group)
        for kind, member in self._members.items():
            member.param_groups = groups[kind]
            member.state = self.state
            update_shortly(member, type(member).step.__wrapped__, self._direct_steps[kind])

    def _make_direct_step(self, kind: str) -> FusedStep | None:
        """Make what calls the kernels of a kind, if there are any and they are known."""
        cls = self._kinds[kind][0]
        groups = [group for group in self.param_groups if group[KIND] == kind]
        is_fused = any(group.get("fused") for group in groups)
        tensors = [tensor for group in groups for tensor in group["params"]]
        on_cpu = all(tensor.is_cpu for tensor in tensors) and not any(map(is_sharded, tensors))
        if cls not in KERNELS or not is_fused or not on_cpu or not is_exact(cls):
            return None
        return FusedStep(cls, tuple(self._members[kind].defaults))


def _update_directly(optimizer: Any) -> bool:
    optimizer.update()
    return True
