"""Every section of every configuration, with its keys, defaults, bounds and meanings."""
