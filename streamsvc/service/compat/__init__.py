"""compat: TODO."""
