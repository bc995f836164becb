"""answers: TODO."""
