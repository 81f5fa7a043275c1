"""Studies: many trials, run where something is missing, and collected on one page."""
