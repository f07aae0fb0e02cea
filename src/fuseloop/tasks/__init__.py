"""Task networks: detectors, segmenters and saliency networks behind one protocol."""
