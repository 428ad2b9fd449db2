"""Molecular dynamics with a model.

All replicas of a system advance together: one neighbor list and one call of the network serve them all. Trajectories
are written as H5MD. The D tensors of molecules can be evaluated during the run. TensorFlow is not needed.
"""
