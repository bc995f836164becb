"""workers: TODO."""
