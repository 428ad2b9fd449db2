"""D tensors from and for other programs."""
