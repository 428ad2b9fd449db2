"""What a model knows of its errors: calibrated deviations, draws of the last layer, distance to the training data."""
