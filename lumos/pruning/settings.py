"""What steers a gated training, as plain values. Imports no torch."""

DEFAULT_LAMBDA = 1e-3
"""What lambda is where neither it nor a target nor a tolerance is given."""
