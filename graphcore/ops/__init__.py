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
    "special",
    "view",
]
