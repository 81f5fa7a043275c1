"""Image data sets: their specification, their sources and the order in which a training run sees them."""
