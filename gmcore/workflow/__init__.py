"""From data to a report with one command, and from a report back to better data."""
