"""Any kernel as explicit loops over vectors."""
