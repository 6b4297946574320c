"""Kernel maps: which input site meets which output site under which weight of a sparse convolution.

    y[outputs] += x[inputs] @ weight[k]      for the pairs of each offset k

A neighbour that is not active is in no pair, so it adds exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from popcloud.errors import RecipeError

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

SIZES = (3, 5)
EDGE = 4  # of the blocks in which neighbours are looked up, in sites
TABLE = 1 << 20  # entries of the table of blocks that is filled at a time: a few MB, so it stays near the core


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

    Way: a table of site numbers per block of 4^3 sites with a rim of size // 2, so that each offset is one look-up for
    all sites of many blocks at once. Raises ValueError if the sites of a block are not side by side.
    """
    if size not in SIZES:
        raise RecipeError(f"kernel size {size}: expected one of {', '.join(map(str, SIZES))}")
    offsets = np.array(list(product(range(-(size // 2), size // 2 + 1), repeat=3)), np.int8)
    found: list[list[tuple[Ints, Ints]]] = [[] for _ in offsets]
    for first, base, table in _tables(sites, size // 2):
        side = EDGE + size - 1
        steps = offsets.astype(np.int64) @ (side * side, side, 1)
        for step, pieces in zip(steps, found, strict=True):
            neighbours = table[base + step]
            rows = np.flatnonzero(neighbours >= 0)
            pieces.append((neighbours[rows], (rows + first).astype(np.int32)))
    inputs, outputs = (np.concatenate([pair[i] for pieces in found for pair in pieces]) for i in (0, 1))
    ranges = _ranges([sum(len(pair[0]) for pair in pieces) for pieces in found])
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
    pieces = [(m, slice(*m.ranges[k]), i) for k in range(counts.shape[1]) for i, m in enumerate(maps)]
    inputs = np.concatenate([m.inputs[rows] + np.int32(into[i]) for m, rows, i in pieces])
    outputs = np.concatenate([m.outputs[rows] + np.int32(out[i]) for m, rows, i in pieces])
    ranges = _ranges(counts.sum(axis=0))
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


def _tables(sites: Ints, rim: int) -> Iterator[tuple[int, Longs, Ints]]:
    """Yield, for some blocks at a time: the first site, each site's place in the flat table, and the table.

    The table holds the numbers of the sites of each block and its rim, -1 where there is none.
    """
    side = EDGE + 2 * rim
    starts, block_of = _runs(sites // EDGE)
    beside = _blocks_beside(sites[starts] // EDGE)
    inner = (sites % EDGE).astype(np.int64)
    own = np.full((len(starts) + 1, EDGE, EDGE, EDGE), -1, np.int32)  # the last block is the one that is absent
    own[block_of, inner[:, 0], inner[:, 1], inner[:, 2]] = np.arange(len(sites), dtype=np.int32)
    place = (inner + rim) @ (side * side, side, 1)
    borders = np.append(starts, len(sites))
    parts = {-1: (slice(0, rim), slice(EDGE - rim, EDGE)), 0: (slice(rim, rim + EDGE), slice(None))}
    parts[1] = (slice(rim + EDGE, side), slice(0, rim))
    step = max(1, TABLE // side**3)
    for first in range(0, len(starts), step):
        last = min(first + step, len(starts))
        table = np.empty((last - first, side, side, side), np.int32)
        for column, delta in enumerate(product((-1, 0, 1), repeat=3)):
            to, source = zip(*(parts[d] for d in delta), strict=True)
            table[(slice(None), *to)] = own[(beside[column, first:last], *source)]
        rows = slice(borders[first], borders[last])
        yield int(borders[first]), place[rows] + (block_of[rows] - first) * side**3, table.ravel()


def _blocks_beside(blocks: Ints) -> Longs:
    """Return the numbers (27, B) of the blocks around each of (B, 3), in lexicographic order; B where there is none."""
    wide = blocks.astype(np.int64) - blocks.min(axis=0) + 1
    keys = wide @ np.array([1 << 42, 1 << 21, 1])  # 2^20 sites are 2^18 blocks, so a step never carries
    order = np.argsort(keys)
    keys = keys[order]
    if np.any(keys[1:] == keys[:-1]):
        raise ValueError("sites of a block are not side by side; sort the sites by voxels.morton")
    beside = np.empty((27, len(blocks)), np.int64)
    for column, delta in enumerate(product((-1, 0, 1), repeat=3)):
        wanted = keys + int(np.dot(delta, (1 << 42, 1 << 21, 1)))
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        beside[column, order] = np.where(keys[at] == wanted, order[at], len(blocks))
    return beside
