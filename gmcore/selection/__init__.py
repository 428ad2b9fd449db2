"""Which frames are worth a reference calculation: uncertain ones, different from the training data and each other."""
