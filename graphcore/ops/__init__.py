"""All primitives, one family a module. Importing this package fills the registry."""

from graphcore.ops import (
    arithmetic,
    compare,
    contract,
    conv,
    elementwise,
    gather,
    pool,
    positions,
    random,
    reduce,
    region,
    smooth,
    special,
    view,
)

__all__ = [
    "arithmetic",
    "compare",
    "contract",
    "conv",
    "elementwise",
    "gather",
    "pool",
    "positions",
    "random",
    "reduce",
    "region",
    "smooth",
    "special",
    "view",
]
