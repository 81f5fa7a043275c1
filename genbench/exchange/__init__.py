"""Exchange runs with other programs: weights in formats that they read, with a model card that describes them."""
