"""The loop-level IR: axes, index expressions, scalar expressions, kernels. Closed: templates rely on knowing all of
it."""
