"""How good faces are, in numbers."""
