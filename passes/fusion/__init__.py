"""From a graph to groups, and from groups to kernels."""
