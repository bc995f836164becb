"""The doors that media comes in by."""
