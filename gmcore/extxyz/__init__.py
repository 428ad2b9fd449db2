"""Extended XYZ at the speed of Python's own conversions, with the results of ASE.

ASE defines what a file means. Ordinary frames are read and written here by the same conversions with less around them;
every other frame is handed to ASE as it is. The library `extxyz` of libAtoms (MIT, in C) was tried instead: it reads as
quickly, but has a grammar of its own for comment lines, so that labels would differ from those of ASE, and it writes
more slowly than ASE and rounds the numbers of the comment line to eight decimals.
"""
