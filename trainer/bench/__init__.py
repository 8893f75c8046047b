"""Measurements of Takt itself: each prints the table that the docs show."""
