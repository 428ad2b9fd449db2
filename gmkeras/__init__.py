"""Training of Gaussian-moment models with TensorFlow and Keras: operations, layers, heads, losses, data, training.

Thin on purpose: everything that computes a feature lives in `gmcore`. What is trained here is exported to plain arrays
(`gmkeras.export`) and evaluated without TensorFlow by `gmcore.model`.
"""
