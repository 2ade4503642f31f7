"""The graph IR: ops, nodes, graphs, and what is said of them."""
