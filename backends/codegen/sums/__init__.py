"""Long sums shared out among tasks."""
