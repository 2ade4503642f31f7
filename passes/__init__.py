"""Passes: graph to graph, graph to partition, partition to plan. Imports nothing, so that every pass is found by its
own module."""
