"""Fusion quality: metrics, their table, and the scoring of frames and folders."""
