"""Training on scenes: a class per point, by networks of sparse convolutions, in stages."""
