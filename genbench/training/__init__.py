"""One trainer for every family: mesh, state, step, checkpoints, logs and the loop."""
