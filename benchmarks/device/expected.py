"""Write the first losses of the training steps on a CPU, which other devices are compared with.

Run as ``python -m benchmarks.device.expected --device opencl:intel``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from benchmarks.device.cold import EXPECTED, SEED, first_losses
from benchmarks.device.report import Report, parse_part
from benchmarks.models import STEPS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and write the file; 1 if one failed, and the file is as it was."""
    options = parse_part("expected", arguments)
    report = Report("expected", options)
    losses = {}
    for name in STEPS:
        with report.case(name) as row:
            row["losses"] = losses[name] = first_losses(options.device, name)
    if report.failed:
        return 1
    EXPECTED.write_text(json.dumps({"device": options.device, "seed": SEED, "losses": losses}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
