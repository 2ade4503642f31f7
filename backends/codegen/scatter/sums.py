"""What kernels of sums over what indices name are, each recognised once."""

from __future__ import annotations

from typing import TypeVar

from backends.codegen.recognition import recognised
from graphcore.kernel.buckets import BucketSum, PointOrder, find_bucket_sums, find_order
from graphcore.kernel.indexed_sums import IndexedSum, find_indexed_sums
from graphcore.kernel.ir import Kernel
from graphcore.plan.target import Reject

__all__ = ["bucket_sums_of", "order_of", "sums_along", "taken"]

Found = TypeVar("Found")


def taken(found: Found | Reject) -> Found:
    """What a kernel is that a family has taken."""
    assert not isinstance(found, Reject), found.reason
    return found


@recognised
def order_of(kernel: Kernel) -> PointOrder | Reject:
    """What a kernel puts in order, or why it is no order of points by row."""
    found = find_order(kernel)
    return Reject(found) if isinstance(found, str) else found


@recognised
def bucket_sums_of(kernel: Kernel) -> tuple[BucketSum, ...] | Reject:
    """The sums over the points of a row, or why there are none."""
    found = find_bucket_sums(kernel)
    return Reject(found) if isinstance(found, str) else found


@recognised
def sums_along(kernel: Kernel) -> tuple[IndexedSum, ...] | Reject:
    """The sums whose indices run along rows, or why there are none."""
    found = find_indexed_sums(kernel, along=True)
    return Reject(found) if isinstance(found, str) else found
