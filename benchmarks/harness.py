"""What every benchmark case shares: interleaved timing, what machine it was, goals."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "torch", "onnxruntime", "ocnn", "spconv")
TURN_SECONDS = 0.01


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median and quartiles over the repeats."""

    median: float
    first: float
    third: float

    def record(self) -> dict[str, float]:
        """Return it for JSON, rounded to what a clock can mean."""
        return {"median_ms": round(self.median, 5), "q1_ms": round(self.first, 5), "q3_ms": round(self.third, 5)}


def interleave(
    calls: Mapping[str, Callable[[], object]], *, seconds: float = 3.0, least: int = 15
) -> dict[str, Timing]:
    """Time the calls in turn, A B C A B C ..., so that a machine whose speed drifts is as slow for one as for another.

    Each turn makes a call as often as fills some milliseconds, after one that is not counted: the caches are its own
    then, as they are where one network answers cloud after cloud, and not those of the peer before it.
    seconds  about how long all of it may take; every call has at least `least` turns
    """
    turns = {name: _turn(call) for name, call in calls.items()}
    spent: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(spent.values()))) < least:
        for name, call in calls.items():
            spent[name].append(_seconds(call, turns[name]) / turns[name])
    return _timings(spent)


def alternate(clocks: Mapping[str, Callable[[], float]], turns: int) -> dict[str, Timing]:
    """Time calls that tell their own seconds, in turn as `interleave` does; a first turn is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in clocks}
    for turn in range(turns + 1):
        for name, clock in clocks.items():
            seconds = clock()
            if turn:
                spent[name].append(seconds)
    return _timings(spent)


def _timings(spent: Mapping[str, list[float]]) -> dict[str, Timing]:
    return {name: Timing(*(1e3 * float(v) for v in np.percentile(s, [50, 25, 75]))) for name, s in spent.items()}


def apart(script: str, *arguments: str) -> Any:
    """Return what a case's own script prints last as JSON: from a fresh process, with OpenMP on one thread.

    OpenMP reads how many threads it has once, and a process that measured before has grown.
    """
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _turn(call: Callable[[], object]) -> int:
    """Return how many calls take about ten milliseconds."""
    if _seconds(call, 1) > TURN_SECONDS:
        return 1
    return max(1, round(TURN_SECONDS / _seconds(call, 3) * 3))


def _seconds(call: Callable[[], object], times: int) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def goal(name: str, value: float, target: float, *, at_least: bool = True) -> dict[str, Any]:
    """Return one goal: met if value >= target, or value <= target with at_least=False."""
    met = value >= target if at_least else value <= target
    return {"name": name, "value": round(value, 4), "goal": target, "met": bool(met)}


def unmeasured(name: str, target: float, why: str) -> dict[str, Any]:
    """Return a goal that this machine can't measure: not met, and why."""
    return {"name": name, "value": None, "goal": target, "met": False, "why": why}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on: processor, instruction sets, versions, commit, date."""
    from popcloud import native

    engine = native.engine()
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": engine.available(),
        "cores": engine.physical_cores(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """Return the processor's name and its family, which says more where a host hides the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{found.get('model name', '?')} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit, marked if any file but a result differs from it."""
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (name or "unknown") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    answer = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def report(case: str, measured: dict[str, Any], goals: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    return {"case": case, "machine": machine(), "measurements": measured, "goals": goals}


def text(result: dict[str, Any]) -> str:
    """Return a result for people: the measurements as they are, then a line per goal."""
    lines = [f"{result['case']} on {result['machine']['processor']}, {', '.join(result['machine']['kernels'])}"]
    lines.append(json.dumps(result["measurements"], indent=2))
    for entry in result["goals"]:
        mark = "met    " if entry["met"] else "NOT MET"
        why = f" ({entry['why']})" if "why" in entry else ""
        lines.append(f"{mark} {entry['name']}: {entry['value']} (goal {entry['goal']}){why}")
    return "\n".join(lines)
