"""`python -m gmcore` is the command line `gmtensor`."""

from gmcore.cli import main

main()
