"""The sections of an analysis: each turns samples into self-describing numbers."""
