"""Keep what training runs came to: `python benchmarks/collect.py RUN [RUN ...] NAME --trained-at COMMIT [--note TEXT]`.

Writes benchmarks/results/accuracy/NAME.json, of several runs {"runs": [...]}. Of each: the recipe, the result, the
accuracy (of scenes, parts and blocks, the first figure) of each epoch on training and validation clouds, the share of
+1 per layer at the end, the shifts that a search ended with, and the commit it was trained at; then the machine, whose
commit is that of collecting. A folder RUN is what `popcloud train` made.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness import ROOT, machine

CURVES = ("train", "validation", "loss")
YOURS = ("root", "start", "teacher")  # of the recipe: folders
LEFT_OUT = "checkpoint"  # of the result: a path


def collect(run: Path, note: str, trained_at: str) -> dict[str, Any]:
    """Return a finished run as one object, without the paths of the machine it ran on."""
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    searched = [line["shifts"] for line in lines if "shifts" in line]
    told = {name: Path(recipe[name]).name for name in YOURS[1:] if recipe.get(name)}  # which run, not where
    return {
        "recipe": recipe | dict.fromkeys(name for name in YOURS if name in recipe) | told,
        "result": {name: value for name, value in result["result"].items() if name != LEFT_OUT},
        "epochs": {name: [round(line[name], 4) for line in lines if line.get(name) is not None] for name in CURVES},
        "positive": lines[-1]["positive"],
        **({"shifts": searched[-1]} if searched else {}),
        "trained_at": trained_at,
        "note": note,
    }


def main(argv: list[str] | None = None) -> int:
    """Write the file and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="folder of a finished run")
    parser.add_argument("name", help="name of the result")
    parser.add_argument("--trained-at", required=True, help="the commit whose code trained it")
    parser.add_argument("--note", default="", help="what a reader should know")
    arguments = parser.parse_args(argv)
    path = ROOT / "benchmarks" / "results" / "accuracy" / f"{arguments.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [collect(run, arguments.note, arguments.trained_at) for run in arguments.run]
    whole = {"machine": machine()} | (runs[0] if len(runs) == 1 else {"runs": runs})
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
