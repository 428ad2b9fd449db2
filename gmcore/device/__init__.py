"""The GPU: the only room that knows CuPy."""

MODULES = {"CuPy": "cupy", "numba-cuda": "numba_cuda"}
"""Packages that a GPU needs, and the modules that they are imported as."""
