"""From structures to energies, forces and tensors: neighbor lists, stages, network, heads.

A file `X_cuda.py` is the GPU twin of `X.py` beside it.
"""
