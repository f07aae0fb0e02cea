"""Training: one recipe per stage, over one crash-safe loop."""
