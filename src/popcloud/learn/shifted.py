"""Shifted sparse convolution and the search for its shifts (BSC-Net: Xu et al., CVPR 2023).

Output channels fall into groups; the group with shift s sums over the 3^3 sites around u + s instead of u:

    y_u = sum over o in {-1, 0, 1}^3, u + s + o active, of W_o^T x_(u + s + o)

A shift is one of the candidates that Figure 1 of the paper draws (its match position is -s); s = 0 is the ordinary
convolution. An inactive site adds nothing. Features do not move and no weight is added. While shifts are searched, the
candidates' kernels, weighted by softmax of the group's logits, are summed into one composite 5^3 kernel, which is the
same as the weighted sum of the candidates' outputs. Inferred, not in the paper's readable parts: the sets of
candidates, four groups, softmax, one kernel shared by all candidates, the confidence loss and both hand rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle, islice, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcloud.errors import RecipeError, unknown
from popcloud.geometry.kernel_map import neighbour_rows
from popcloud.learn.maps import Shift, TensorMap, TensorPyramid
from popcloud.learn.sparse import sparse_conv
from popcloud.learn.sparse_layers import SparseConv

CENTRE: Shift = (0, 0, 0)
FACES: tuple[Shift, ...] = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
CORNERS: tuple[Shift, ...] = tuple(
    (s * x, s * y, s * z) for x, y, z in ((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)) for s in (1, -1)
)
ALL: tuple[Shift, ...] = tuple((x, y, z) for x, y, z in product((-1, 0, 1), repeat=3))
CANDIDATES = {"all": ALL, "corners": (CENTRE, *CORNERS), "faces": (CENTRE, *FACES)}
HAND_RULES = ("faces", "corners")
FIRST_LOGIT = 0.01  # of every candidate: softmax starts uniform (EdMIPS: Cai and Vasconcelos 2020)


def hand_shifts(rule: str, groups: int) -> list[Shift]:
    """Return a shift per group by hand: BSC-Manual, whose rule the paper's readable parts do not give.

    "faces": the first group stays, the others take opposite faces in turn; "corners": opposite corners in turn, each
    once with eight groups. RecipeError for other names.
    """
    if rule not in HAND_RULES:
        raise RecipeError(unknown("hand rule", rule, HAND_RULES))
    if rule == "corners":
        return list(islice(cycle(CORNERS), groups))
    return [CENTRE, *islice(cycle(FACES), groups - 1)]


class ShiftedConv(SparseConv):
    """A submanifold SparseConv whose output channels, in equal groups side by side, see shifted neighbourhoods.

    groups            how many; RecipeError where they don't divide the outputs
    candidates        "all" 27, "corners" and centre (9), "faces" and centre (7): which shifts are allowed and searched
    separate_kernels  search with a kernel of its own for each candidate
    shifts            a shift per group; all zero if not given

    In the search (`start_search`) there are also logits (groups, candidates), and with separate kernels latent weights
    (candidates * outputs, 27 * inputs). The pyramid must have 5^3 neighbourhoods.
    """

    shifts: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        groups: int,
        candidates: str = "all",
        separate_kernels: bool = False,
        shifts: list[Shift] | None = None,
        **how: Any,
    ):
        if groups < 1 or outputs % groups:
            raise RecipeError(f"groups: expected a divisor of the {outputs} output channels, found {groups}")
        if candidates not in CANDIDATES:
            raise RecipeError(unknown("set of shift candidates", candidates, CANDIDATES))
        super().__init__(inputs, outputs, kind="same", **how)
        self.groups, self.candidates, self.separate = groups, CANDIDATES[candidates], separate_kernels
        self.register_buffer("shifts", torch.zeros(groups, 3, dtype=torch.int8))
        self.logits: nn.Parameter | None = None
        if shifts is not None:
            self.set_shifts(shifts)

    @property
    def exact(self) -> bool:
        """Return whether eval mode computes with bare signs: not while shifts are searched."""
        return self.logits is None

    def set_shifts(self, shifts: Sequence[Sequence[int]]) -> None:
        """Fix the shifts, one a group. RecipeError where one is no candidate or their number is wrong."""
        found = [tuple(shift) for shift in shifts]
        strange = [shift for shift in found if shift not in self.candidates]
        if len(found) != self.groups or strange:
            what = f"the shift {strange[0]}" if strange else f"{len(found)} shifts"
            raise RecipeError(
                f"shifts: expected {self.groups}, each of {len(self.candidates)} candidates, found {what}"
            )
        self.shifts.copy_(torch.tensor(found))

    def start_search(self) -> None:
        """Make all shifts possible: logits, all alike, and perhaps a kernel for each candidate."""
        logits = torch.full((self.groups, len(self.candidates)), FIRST_LOGIT)
        self.logits = nn.Parameter(logits.to(self.weight))
        if self.separate:
            self.weight = nn.Parameter(self.weight.detach().repeat(len(self.candidates), 1))

    def best_shifts(self) -> list[list[int]]:
        """Return each group's shift, in a search the most likely one."""
        if self.logits is None:
            return self.shifts.tolist()
        return [list(self.candidates[i]) for i in self._choices(self.logits).tolist()]

    def _choices(self, logits: Tensor) -> Tensor:
        """Return each group's most likely candidate, (groups,); of equal ones the centre, which is no shift at all."""
        centre = self.candidates.index(CENTRE)
        best = logits.detach().argmax(1)
        return torch.where(logits[:, centre] == logits.amax(1), centre, best)

    @torch.no_grad()
    def end_search(self) -> None:
        """Fix each group's most likely shift, and its kernel."""
        if self.logits is None:
            raise RecipeError("shifts: expected a search that was started, found none to end")
        self.set_shifts(self.best_shifts())
        if self.separate:
            kernels = self.weight.unflatten(0, (len(self.candidates), self.groups, -1))
            best = self._choices(self.logits)
            rows = torch.arange(self.groups, device=best.device)
            self.weight = nn.Parameter(kernels[best, rows].flatten(0, 1).contiguous())
        self.logits = None

    def convolve(self, seen: Tensor, weight: Tensor, at: TensorPyramid) -> Tensor:
        """Return the bare convolution, group by group, or that of the composite kernel."""
        if self.logits is not None:
            return sparse_conv(seen, self.composite(weight), self.wide(at))
        maps = [at.window(self.level, (x, y, z)) for x, y, z in self.shifts.tolist()]
        return sparse_conv(seen, self.kernel(weight), *maps)

    def wide(self, at: TensorPyramid) -> TensorMap:
        """Return the map of the 5^3 neighbourhood. RecipeError where the pyramid has only 3^3."""
        at.window(self.level, FACES[0])
        return at.neighbours(self.level)

    def composite(self, weight: Tensor) -> Tensor:
        """Return Wc[o] = sum over candidates s of pi_s W[o - s], per group, as (125, inputs, outputs)."""
        logits = self.logits
        assert logits is not None
        places = _places(self.candidates).to(weight)
        weighted = F.softmax(logits, 1)[:, :, None, None] * places  # (groups, candidates, 125, 27)
        if self.separate:
            kernels = weight.view(len(self.candidates), self.groups, -1, 27, self.inputs).permute(1, 0, 3, 4, 2)
            kernels, mixed = kernels.flatten(1, 2), weighted.transpose(1, 2).flatten(2)
        else:
            kernels, mixed = weight.view(self.groups, -1, 27, self.inputs).permute(0, 2, 3, 1), weighted.sum(1)
        made = torch.bmm(mixed, kernels.flatten(2))  # (groups, 125, inputs * width)
        return made.unflatten(2, (self.inputs, -1)).permute(1, 2, 0, 3).flatten(2)


@cache
def _places(candidates: tuple[Shift, ...]) -> Tensor:
    """Return (candidates, 125, 27): 1 where kernel cell i, moved by the candidate, lies on cell o of 5^3."""
    places = torch.zeros(len(candidates), 125, 27)
    for place, shift in zip(places, candidates, strict=True):
        place[torch.from_numpy(neighbour_rows(shift)), torch.arange(27)] = 1
    return places


def shifted_layers(net: nn.Module) -> Iterator[tuple[str, ShiftedConv]]:
    """Yield the shifted convolutions with their names, in the order of definition."""
    for name, module in net.named_modules():
        if isinstance(module, ShiftedConv):
            yield name, module


def start_search(net: nn.Module) -> None:
    """Start the search in every shifted convolution; before the optimisers are built. RecipeError if there is none."""
    layers = list(shifted_layers(net))
    if not layers:
        raise RecipeError("search of shifts: expected a network with shifted convolutions, found none; use variant net")
    for _, layer in layers:
        layer.start_search()


def end_search(net: nn.Module) -> None:
    """Fix the most likely shifts everywhere; parameters change, so optimisers must be built anew."""
    for _, layer in shifted_layers(net):
        layer.end_search()


def search_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the logits of a search, for an optimiser of their own."""
    return [layer.logits for _, layer in shifted_layers(net) if layer.logits is not None]


def best_shifts(net: nn.Module) -> dict[str, list[list[int]]]:
    """Return the shifts of each shifted convolution by its name, in a search the most likely ones."""
    return {name: layer.best_shifts() for name, layer in shifted_layers(net)}


def copy_shifts(source: nn.Module, target: nn.Module) -> None:
    """Fix the shifts of one network in another: how what was searched reaches a network with fresh weights."""
    found = best_shifts(source)
    for name, layer in shifted_layers(target):
        if name not in found:
            raise RecipeError(f"shifts: expected some for {name}, found {', '.join(found) or 'none at all'}")
        layer.set_shifts(found[name])


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": lambda pi: -(pi * pi.clamp_min(torch.finfo(pi.dtype).tiny).log()).sum(1),
    "one_minus_max": lambda pi: 1 - pi.amax(1),
    "sum_pi_one_minus_pi": lambda pi: (pi * (1 - pi)).sum(1),
}


def confidence(net: nn.Module, kind: str = "entropy") -> Tensor:
    """Return the confidence loss of a search: 0 if each group is sure of one shift; mean over layers and groups.

    The paper adds it with the weight 0.1 for FCN and 0.01 for UNET; its formula was not readable. "entropy", at most
    ln(candidates), is that of Quantformer by the same group; "one_minus_max" and "sum_pi_one_minus_pi" are others.
    RecipeError for other names, and where nothing is searched.
    """
    if kind not in CONFIDENCES:
        raise RecipeError(unknown("confidence loss", kind, CONFIDENCES))
    found = [CONFIDENCES[kind](F.softmax(logits, 1)) for logits in search_parameters(net)]
    if not found:
        raise RecipeError("confidence loss: expected a search of shifts that was started, found none")
    return torch.cat(found).mean()
