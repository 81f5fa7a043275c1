"""Where the trials of a study run: on this machine, or on a cluster."""
