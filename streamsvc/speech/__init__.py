"""speech: TODO."""
