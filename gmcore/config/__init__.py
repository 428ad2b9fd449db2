"""The sections of all configurations, with keys, defaults, bounds and descriptions."""
