"""vision: TODO."""
