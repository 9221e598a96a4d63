"""Scores of generated faces."""
