"""Files that are read: checked before they are parsed, and asked for no more memory than they can need."""
