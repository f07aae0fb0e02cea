"""Detectors, and what all of them share: boxes."""
