"""A fuzzer for every kind of file that is read: damaged inputs must be refused in one sentence, or be read.

`samples` writes one good file of each kind, `mutations` and its neighbors damage it, `readers` reads it as the program
does, `worker` does this in a process with limits, `pool` keeps two of them busy. Everything follows from the kind and
a seed, so that a finding is repeated by

    PYTHONPATH=.:tests python -m fuzz KIND SEED
"""
