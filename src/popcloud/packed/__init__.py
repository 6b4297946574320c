"""The model file: what a network is once it is trained, and how it lies in bytes."""
