"""Error against cost: gmtensor and peers that install from PyPI, trained on the same frames (see ../README.md)."""
