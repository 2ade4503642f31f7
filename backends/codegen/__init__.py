"""From kernels to source: schedules, and the language that spells them."""
