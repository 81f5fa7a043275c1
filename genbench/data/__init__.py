"""Image data sets: their specifications, their sources, and the order in which a training run sees the images."""
