"""Train: everything that needs PyTorch, and nothing outside this room does."""
