"""What the networks on neighbourhoods that give a class per cloud share."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """A network (B, n, 3) -> logits (B, classes) without a feature transform."""

    def loss_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the penalty of a feature transform, which is 0 here."""
        logits: Tensor = self(x)
        return logits, logits.new_zeros(())
