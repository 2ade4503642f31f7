"""Functions that build graphs of graphs while users build theirs."""
