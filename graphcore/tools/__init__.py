"""Pictures, checks, the command line."""
