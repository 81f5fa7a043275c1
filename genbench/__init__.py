"""genbench: generative families under one trainer and one evaluation harness."""

__version__ = '0.1.0'
