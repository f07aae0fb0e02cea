"""Scores of image files: which belong together, scoring on all cores, tables, JSON and CSV."""
