"""Errors against reference data, predictions in files, learning curves, figures of a training."""
