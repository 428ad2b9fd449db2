"""Data sets: structures with labels, their readers, their division into parts."""
