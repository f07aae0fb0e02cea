"""What task networks make of fused images: predictions, and scores with intervals."""
