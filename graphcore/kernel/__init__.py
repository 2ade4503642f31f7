"""The loop-level IR: kernels of parallel axes, reductions and stores over expressions of scalar functions."""

from graphcore.kernel import functions as functions  # the table, without which no expression can name a function
