"""Molecular dynamics with a model: many replicas of one system advance together, one neighbor list and one network call
for all; trajectories in H5MD; the D tensor of a molecule along the way. Needs no TensorFlow.
"""
