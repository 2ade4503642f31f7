"""From kernels to a plan: steps, levels, order, memory."""
