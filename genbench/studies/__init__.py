"""Studies: many trials, of which only the missing ones run, collected on one page."""
