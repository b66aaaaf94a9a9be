"""Recorded play to learn from."""
