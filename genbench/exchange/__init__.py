"""Runs for other programs: their weights in formats that these read, with a card that says what the weights are."""
