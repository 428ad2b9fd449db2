"""Molecules in a structure: bonds, mapping of atoms, superposition."""
