"""events: TODO."""
