"""The report of a run: figures and tables on one self-contained HTML page, with every number also in JSON."""
