"""Aligned pairs to train and test with: folders on disk, public layouts, synthetic scenes."""
