"""rules: TODO."""
