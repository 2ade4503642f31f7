"""Whether this process is still the one that opened something.

Device runtimes do not survive a fork, so every run asks. Asking the operating system for the process's number costs
more than the rest of a small run's checks; counting forks costs an attribute.
"""

from __future__ import annotations

import os

__all__ = ["PROCESS"]


class Process:
    """This process; ``forks`` is how many forks lie between it and the one that imported this module."""

    forks = 0

    def forked(self) -> None:
        """Note that this is a child."""
        self.forks += 1


PROCESS = Process()
if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(after_in_child=PROCESS.forked)
