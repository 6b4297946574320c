"""Training with a class per point: parts of objects, and blocks of rooms."""
