"""`python -m gmcore` is the command line `gmtensor`."""

from gmcore.commands.app import main

main()
