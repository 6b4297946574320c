"""Run a packed program: what it means in numpy, and the engine."""
