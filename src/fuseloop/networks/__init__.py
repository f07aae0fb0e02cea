"""nn.Modules alone, tensors in and out, one file for each published network."""
