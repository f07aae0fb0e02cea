"""Networks that say how salient every pixel is."""
