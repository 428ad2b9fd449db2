"""Readers of data files, one file per kind of format: each yields `gmcore.data.frames.Frame`."""
