"""The command line `gmtensor`, one file per group of commands."""
