"""Kernel maps: which input site meets which output site under which weight of a sparse convolution.

    y[outputs] += x[inputs] @ weight[k]      for the pairs of each offset k

A neighbour that is not active is in no pair, so it adds exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import RecipeError

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

SIZES = (3, 5)
EDGE = 4  # of the blocks in which neighbours are looked up, in sites
WITHIN = (EDGE * EDGE, EDGE, 1)  # coordinates within a block, times this, are the place in it


@dataclass(frozen=True)
class KernelMap:
    """The pairs of one sparse convolution, sorted by offset.

    offsets       (K, 3) int8: where the input lies, seen from the output, in sites of the finer of the two grids
    inputs        (P,) int32, rows of the input sites
    outputs       (P,) int32, rows of the output sites; within an offset they ascend strictly
    ranges        (K, 2) int64: the pairs of offset k are rows ranges[k, 0] to ranges[k, 1] of inputs and outputs
    input_sites   number of input sites
    output_sites  number of output sites
    mirrors       (K, 2) int64: the rows of the pairs of -offsets[k], in a submanifold map; else None
    """

    offsets: NDArray[np.int8]
    inputs: Ints
    outputs: Ints
    ranges: Longs
    input_sites: int
    output_sites: int
    mirrors: Longs | None = None

    def picked(self, rows: Sequence[int] | NDArray[np.integer]) -> KernelMap:
        """Return the map of those offsets alone, in that order; the pairs are shared, not copied."""
        rows = np.asarray(rows, np.int64)
        mirrors = None if self.mirrors is None else self.mirrors[rows]
        return KernelMap(
            self.offsets[rows],
            self.inputs,
            self.outputs,
            self.ranges[rows],
            self.input_sites,
            self.output_sites,
            mirrors,
        )

    def transposed(self) -> KernelMap:
        """Return the map of the gradient, or of the inverse convolution: inputs and outputs swapped, k stays k.

        Nothing is sorted or copied: in a submanifold map the pairs of an offset, swapped, are those of its mirror
        image; a strided map has the inputs of an offset ascending as well.
        """
        if self.mirrors is not None:
            pairs, ranges, mirrors = (self.inputs, self.outputs), self.mirrors, self.ranges
        else:
            pairs, ranges, mirrors = (self.outputs, self.inputs), self.ranges, None
        return KernelMap(-self.offsets, *pairs, ranges, self.output_sites, self.input_sites, mirrors)


def submanifold(sites: Ints, size: int = 3) -> KernelMap:
    """Return the map of a submanifold convolution: outputs are the inputs' own sites, K = size^3 offsets.

    sites  (S, 3) int32, unique, in canonical order
    size   3 or 5; offsets in lexicographic order, x slowest, from -(size // 2) up

    Half of the offsets are looked up, block by block; the other half is their mirror image. Raises RecipeError for
    another size, ValueError if the sites of a block of 4^3 are not side by side.
    """
    if size not in SIZES:
        raise RecipeError(f"kernel size {size}: expected one of {', '.join(map(str, SIZES))}")
    offsets = np.array(list(product(range(-(size // 2), size // 2 + 1), repeat=3)), np.int8)
    blocks = _Blocks.of(sites)
    own = np.arange(len(sites), dtype=np.int32)
    pieces = [(own, own)] * len(offsets)
    for k in range(len(offsets) // 2):
        found = blocks.neighbours(offsets[k])
        inputs, outputs = pieces[k] = _present(found)
        found.fill(-1)
        found[inputs] = outputs
        pieces[-1 - k] = _present(found)
    ranges = _ranges([len(inputs) for inputs, _ in pieces])
    inputs, outputs = (np.concatenate(side) for side in zip(*pieces, strict=True))
    return KernelMap(offsets, inputs, outputs, ranges, len(sites), len(sites), ranges[::-1].copy())


def strided(sites: Ints) -> tuple[Ints, KernelMap]:
    """Return the parents of sites (S, 3) in canonical order, and the map of a convolution of size and stride 2 to them.

    Offset k = 4 (x & 1) + 2 (y & 1) + (z & 1) of the child. The map `.transposed()` is the inverse convolution, back to
    the same sites.
    """
    starts, coarse_of = _runs(sites >> 1)
    child = (sites & 1) @ np.array([4, 2, 1], np.int32)
    inputs = np.argsort(child.astype(np.uint8), kind="stable").astype(np.int32)
    offsets = np.array(list(product((0, 1), repeat=3)), np.int8)
    ranges = _ranges(np.bincount(child, minlength=8))
    return sites[starts] >> 1, KernelMap(offsets, inputs, coarse_of[inputs], ranges, len(sites), len(starts))


def neighbour_rows(shift: Sequence[int]) -> Longs:
    """Return which 27 of the 125 offsets of a size-5 map a 3^3 kernel sees that is moved by `shift`, each in -1 .. 1.

    Row i of the answer is the number of the offset shift + i, i over {-1, 0, 1}^3 in lexicographic order.
    """
    if len(shift) != 3 or not set(shift) <= {-1, 0, 1}:
        raise RecipeError(f"shift {tuple(shift)}: expected three numbers, each -1, 0 or 1")
    inner = np.array(list(product((-1, 0, 1), repeat=3)), np.int64)
    rows: Longs = (inner + np.asarray(shift, np.int64) + 2) @ np.array([25, 5, 1])
    return rows


def stack_maps(maps: Sequence[KernelMap]) -> KernelMap:
    """Return one map for several clouds whose sites are stacked in that order; all of one kind, none of them picked."""
    into = np.cumsum([0, *(m.input_sites for m in maps)])
    out = np.cumsum([0, *(m.output_sites for m in maps)])
    counts = np.stack([m.ranges[:, 1] - m.ranges[:, 0] for m in maps])
    if any(len(m.inputs) != number for m, number in zip(maps, counts.sum(axis=1), strict=True)):
        raise ValueError("only whole kernel maps can be stacked, and one of these is picked")
    ranges = _ranges(counts.sum(axis=0))
    inputs, outputs = np.empty(counts.sum(), np.int32), np.empty(counts.sum(), np.int32)
    begins = ranges[:, 0] + np.cumsum(counts, axis=0) - counts
    for at, (one, starts) in enumerate(zip(maps, begins, strict=True)):
        for (begin, end), start in zip(one.ranges.tolist(), starts.tolist(), strict=True):
            to = slice(start, start + end - begin)
            np.add(one.inputs[begin:end], np.int32(into[at]), out=inputs[to])
            np.add(one.outputs[begin:end], np.int32(out[at]), out=outputs[to])
    mirrors = None if maps[0].mirrors is None else ranges[::-1].copy()
    return KernelMap(maps[0].offsets, inputs, outputs, ranges, int(into[-1]), int(out[-1]), mirrors)


def _ranges(counts: Sequence[int] | Longs) -> Longs:
    ends = np.cumsum(counts, dtype=np.int64)
    return np.stack([ends - counts, ends], axis=1)


def _runs(cells: Ints) -> tuple[Longs, Ints]:
    """Return where each run of equal rows of (S, 3) starts, and the number of the run each row is in."""
    new = np.ones(len(cells), np.bool_)
    np.any(cells[1:] != cells[:-1], axis=1, out=new[1:])
    return np.flatnonzero(new), np.cumsum(new, dtype=np.int32) - np.int32(1)


def _present(found: Ints) -> tuple[Ints, Ints]:
    """Return the pairs (inputs, outputs) of the row found for each output, -1 where there is none."""
    outputs = np.flatnonzero(found >= 0)
    return found[outputs], outputs.astype(np.int32)


@dataclass(frozen=True)
class _Blocks:
    """Sites in blocks of 4^3: searching is for blocks, of which there are few; a site is then looked up.

    block   (S,) of each site: its number, times 27
    place   (S,) of each site within its block, 0 .. 63
    beside  (B * 27,): where in `rows` the blocks around each block begin, in lexicographic order
    rows    ((B + 1) * 64,): which site is at each place of each block, -1 for none; the last block is an empty one
    """

    block: Longs
    place: Longs
    beside: Longs
    rows: Ints

    @classmethod
    def of(cls, sites: Ints) -> _Blocks:
        """Return the blocks of sites (S, 3)."""
        starts, number = _runs(sites // EDGE)
        place = (sites % EDGE) @ np.array(WITHIN)
        rows = np.full((len(starts) + 1) * EDGE**3, -1, np.int32)
        block = number.astype(np.int64)
        rows[block * EDGE**3 + place] = np.arange(len(sites), dtype=np.int32)
        return cls(block * 27, place, _blocks_beside(sites[starts] // EDGE).ravel() * EDGE**3, rows)

    def neighbours(self, offset: NDArray[np.int8]) -> Ints:
        """Return the row of the neighbour at `offset` of each site, -1 where there is none."""
        moved = np.array(list(product(range(EDGE), repeat=3))) + offset
        around = (moved // EDGE + 1) @ (9, 3, 1)  # which of the 27 blocks each place looks into
        within = (moved % EDGE) @ WITHIN
        return self.rows[self.beside[self.block + around[self.place]] + within[self.place]]


def _blocks_beside(blocks: Ints) -> Longs:
    """Return the numbers (B, 27) of the blocks around each of (B, 3), in lexicographic order; B where there is none."""
    to_key = np.array([1 << 42, 1 << 21, 1])  # 2^20 sites are 2^18 blocks: a step over the border meets no other block
    keys = (blocks - blocks.min(axis=0)) @ to_key
    order = np.argsort(keys)
    keys = keys[order]
    if np.any(keys[1:] == keys[:-1]):
        raise ValueError("sites of a block are not side by side; sort the sites by voxels.morton")
    beside = np.full((len(blocks), 27), len(blocks))
    beside[:, 13] = np.arange(len(blocks))
    for column, delta in enumerate(list(product((-1, 0, 1), repeat=3))[:13]):
        wanted = keys + to_key @ delta
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        met = keys[at] == wanted
        one, two = order[met], order[at[met]]
        beside[one, column], beside[two, 26 - column] = two, one
    return beside
