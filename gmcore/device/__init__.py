"""The GPU: the only room that knows CuPy."""
