"""Measure a device: ``python -m benchmarks.device [--device opencl:gpu] [--parts probe,cold,steps,kernels,alone]
[--seconds 60] [--small] [--compile] [--out FILE]``.

``probe`` tells what the device is and how fast it launches, copies and computes. ``cold`` compiles the training steps
of ``benchmarks.models``, all at once, and compares their first losses with those of a CPU; ``expected`` writes those
losses (``benchmarks/results/expected_losses.json``). ``steps`` times them beside PyTorch on CUDA where that is
installed, ``kernels`` every kernel of them by the device's clock, ``alone`` single products, convolutions, sums and
rows.

Every part is a process of its own under a time limit. Its results are written after every case, to a file beside FILE
that goes into FILE at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import table

PARTS = ("probe", "cold", "steps", "kernels", "alone")
_GRACE = 15.0  # seconds for the last case
_COLUMNS = {
    "cold": ("case", "seconds", "compiler", "functions", "mode", "launches", "worst loss", "error"),
    "steps": ("case", "mode", "launches", "ms", "error"),
    "kernels": ("case", "steps", "us", "model us", "error"),
    "alone": ("case", "us", "tflops", "gbs", "wrong", "peers", "error"),
}


def run_part(part: str, options: argparse.Namespace, out: Path) -> str | None:
    """Run a part in a process of its own; what went wrong, if anything did."""
    command = [sys.executable, "-m", f"benchmarks.device.{part}", "--device", options.device, "--out", str(out)]
    command += ["--seconds", str(options.seconds), "--only", options.only]
    command += ["--small"] * options.small + ["--compile"] * options.compile
    try:
        done = subprocess.run(command, timeout=options.seconds + _GRACE, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {options.seconds + _GRACE:.0f} s"
    return f"exit status {done.returncode}" if done.returncode else None


def show(part: str, found: Mapping[str, Any]) -> None:
    """A part's table."""
    columns = [c for c in _COLUMNS.get(part, ()) if any(c in row for row in found["cases"])]
    if columns:
        rows = [{c: _cell(row.get(c, "")) for c in columns} for row in found["cases"]]
        print(f"\n{part}, {found['device']}\n{table(rows, columns)}", flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    return str(value)[:80]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="opencl:gpu", help="graphcore's device string")
    parser.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        default=list(PARTS),
        help=f"of {', '.join(PARTS)} (all by default), and expected",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part")
    parser.add_argument("--only", default="", help="names of cases, with commas; all by default")
    parser.add_argument("--small", action="store_true", help="little of everything, to try the benchmark itself")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--out", type=Path, default=Path("device.json"), help="the result file")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - {*PARTS, "expected"}
    if unknown:
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print tables, write all results; 1 if a part did not come to its end or a case failed."""
    options = parse(arguments)
    whole: dict[str, Any] = {}
    failures = {}
    for part in options.parts:
        out = options.out.with_name(f"{options.out.stem}_{part}.json")
        out.unlink(missing_ok=True)
        failure = run_part(part, options, out)
        whole[part] = json.loads(out.read_text()) if out.is_file() else {"device": options.device, "cases": []}
        if failure:
            failures[part] = whole[part]["failure"] = failure
        options.out.write_text(json.dumps(whole, indent=1) + "\n")
        out.unlink(missing_ok=True)
    for part, found in whole.items():
        show(part, found)
    for part, failure in failures.items():
        print(f"{part}: {failure}", file=sys.stderr)
    print("written to", options.out.name)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
