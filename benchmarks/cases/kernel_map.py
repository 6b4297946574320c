"""Finding the 27 neighbours of each of some 190,000 sites of a room at 2 cm, on one thread: look-ups per second.

Ours makes the lists that the engine's layers read, site by site; "pairs" sorts them by offset, as training wants them.
Peers get the same sites and find the same pairs: spconv's CPU index building; scipy's k-d tree, asked for pairs within
one site along each axis, half of them by symmetry; a search in sorted keys by numpy, and a plain hash map, Python's
own, both asked offset by offset. All answers are compared before the timing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases.sparse import EDGES, room
from cases.sparse_peers import Sites, import_spconv, missing
from harness import apart, goal, interleave, report, unmeasured
from popcloud import native
from popcloud.geometry.voxels import voxelize

LOOK_UPS = 300e6  # per second
OVER_SPCONV = 4
LEAST, SECONDS = 7, 8.0
OFFSETS = np.array(list(product((-1, 0, 1), repeat=3)), np.int64)
SIDES = np.array([1 << 42, 1 << 21, 1])  # of a key that packs the three coordinates of a site

Keys = NDArray[np.int64]


def run() -> dict[str, Any]:
    """Return the report."""
    measured = apart(__file__)
    ms = {name: time["median_ms"] for name, time in measured["times"].items()}
    measured["look_ups_per_s"] = {name: round(27 * measured["sites"] / time * 1e3) for name, time in ms.items()}
    rate = measured["look_ups_per_s"]["popcloud"] / 1e6
    goals = [goal("million look-ups per second", rate, LOOK_UPS / 1e6)]
    why, name = missing("spconv"), "times faster than spconv"
    goals.append(unmeasured(name, OVER_SPCONV, why) if why else goal(name, ms["spconv"] / ms["popcloud"], OVER_SPCONV))
    return report("kernel-map", measured, goals)


def measure(cells: str = "200k", least: int = LEAST, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the times of all who find the neighbours of the room's sites."""
    sites = voxelize(room(EDGES[cells]), EDGES[cells]).sites
    wanted = None
    for name, pairs in ANSWERS.items():
        if _why_not(name) is None:
            found = np.sort(pairs(sites))
            wanted = found if wanted is None else wanted
            assert np.array_equal(found, wanted), f"{name} finds other neighbours"
    calls = {name: prepare(sites) for name, prepare in CALLS.items() if _why_not(name) is None}
    times = interleave(calls, seconds=seconds, least=least)
    return {
        "sites": len(sites),
        "neighbours": round(len(wanted) / len(sites), 2) if wanted is not None else None,
        "times": {name: time.record() for name, time in times.items()},
    }


def _why_not(name: str) -> str | None:
    """Return why a peer can't be measured here, None if it can."""
    if name == "k-d tree":
        try:
            import scipy.spatial  # noqa: F401
        except ImportError as error:
            return str(error)
    return missing(name)


def _packed(inputs: NDArray[Any], outputs: NDArray[Any]) -> Keys:
    """Return pairs of rows as numbers, to be compared."""
    return inputs.astype(np.int64) << 32 | outputs


def _keys(sites: Sites) -> Keys:
    return sites.astype(np.int64) @ SIDES


def ours(sites: Sites) -> Keys:
    """Return the engine's lists as packed pairs."""
    begin, entries = native.engine().neighbours(sites)
    return _packed(entries >> 7, np.repeat(np.arange(len(sites)), np.diff(begin.astype(np.int64))))


def our_pairs(sites: Sites) -> Keys:
    """Return the engine's kernel map as packed pairs."""
    inputs, outputs, _ = native.engine().submanifold(sites)
    return _packed(inputs, outputs)


def call_spconv(sites: Sites) -> Callable[[], Any]:
    """Return a call that builds spconv's index pairs of a submanifold convolution."""
    import torch

    library = import_spconv()
    ops = library.ops
    rows = torch.from_numpy(np.pad(sites, ((0, 0), (1, 0))))
    shape = [int(edge) + 1 for edge in sites.max(axis=0)]
    ones, zeros = [1, 1, 1], [0, 0, 0]
    return lambda: ops.get_indice_pairs(
        rows, 1, shape, library.ConvAlgo.Native, [3, 3, 3], ones, ones, ones, zeros, subm=True
    )


def spconv_pairs(sites: Sites) -> Keys:
    """Return them as packed pairs: spconv counts those of 13 offsets; the others are their mirror, and rows alone."""
    _, pairs, counts = call_spconv(sites)()
    half = [pairs[:, k, :count].numpy() for k, count in enumerate(counts.tolist()[:13])]
    own = np.arange(len(sites), dtype=np.int64)
    return np.concatenate([_packed(own, own), *(_packed(*p) for p in half), *(_packed(*p[::-1]) for p in half)])


def tree_pairs(sites: Sites) -> Keys:
    """Return what scipy's k-d tree finds, both ways round, and each site itself."""
    one, two = _tree(sites)().T
    own = np.arange(len(sites), dtype=np.int64)
    return np.concatenate([_packed(one, two), _packed(two, one), _packed(own, own)])


def _tree(sites: Sites) -> Callable[[], Any]:
    from scipy.spatial import cKDTree

    return lambda: cKDTree(sites).query_pairs(1.5, p=np.inf, output_type="ndarray")


def search_pairs(sites: Sites) -> Keys:
    """Return what is found by binary search in the sorted keys."""
    keys = _keys(sites)
    order = np.argsort(keys)
    keys = keys[order]
    parts = []
    for delta in OFFSETS @ SIDES:
        at = np.minimum(np.searchsorted(keys, keys + delta), len(keys) - 1)
        met = keys[at] == keys + delta
        parts.append(_packed(order[at[met]], order[met]))
    return np.concatenate(parts)


def hash_pairs(sites: Sites) -> Keys:
    """Return what is found in a dictionary of keys."""
    keys = _keys(sites)
    row_of = {key: row for row, key in enumerate(keys.tolist())}
    parts = []
    for delta in OFFSETS @ SIDES:
        found = np.array([row_of.get(key, -1) for key in (keys + delta).tolist()])
        outputs = np.flatnonzero(found >= 0)
        parts.append(_packed(found[outputs], outputs))
    return np.concatenate(parts)


ANSWERS: dict[str, Callable[[Sites], Keys]] = {
    "popcloud": ours,
    "popcloud, pairs": our_pairs,
    "spconv": spconv_pairs,
    "k-d tree": tree_pairs,
    "sorted keys": search_pairs,
    "hash map": hash_pairs,
}
CALLS: dict[str, Callable[[Sites], Callable[[], Any]]] = {  # of sites, what is timed
    "popcloud": lambda sites: lambda: native.engine().neighbours(sites),
    "popcloud, pairs": lambda sites: lambda: native.engine().submanifold(sites),
    "spconv": call_spconv,
    "k-d tree": _tree,
    "sorted keys": lambda sites: lambda: search_pairs(sites),
    "hash map": lambda sites: lambda: hash_pairs(sites),
}


if __name__ == "__main__":
    print(json.dumps(measure()))
