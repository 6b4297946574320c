"""The fully convolutional network over active sites, real-valued and binary from one class.

FCN-S and FCN-H of BSC-Net (Xu et al., CVPR 2023, supplementary): 9 levels, width times level, 1 or 2 SSC blocks each.
Their host, inferred from the matching widths, is SparseConvNet's network for NYU Depth v2 (Graham et al. 2018): a
classifier on every level, whose answers are copied to the finer levels and added.
"""

from __future__ import annotations

from torch import Tensor, nn

from popcloud.learn.designs import Conv, Design, SscBlocks
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.sparse_layers import Add, Unpool


class Classifier(nn.Module):
    """Real-valued logits from the rows of a level, after norm and ReLU where the design wants them."""

    def __init__(self, design: Design, channels: int, classes: int, bias: bool):
        super().__init__()
        self.head = design.head(channels)
        self.linear = design.pointwise(channels, classes, norm=False, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(sites, channels) -> (sites, classes)."""
        return self.linear(x if self.head is None else self.head(x))


class Fcn(nn.Module):
    """Logits for every active site: rows (sites, features) and their pyramid -> (sites, classes).

    width     channels of the finest level; level l has (l + 1) * width
    blocks    SSC blocks of each level
    levels    of the pyramid the network is called with
    """

    def __init__(self, design: Design, *, classes: int, features: int, width: int, blocks: int, levels: int = 9):
        super().__init__()
        self.levels, self.size, self.features, self.classes = levels, design.size, features, classes
        widths = [width * (level + 1) for level in range(levels)]
        steps = zip(range(levels - 1), widths, widths[1:], strict=False)
        self.stem = design.stem(features, width)
        self.blocks = nn.ModuleList(SscBlocks(design, c, c, level, blocks) for level, c in enumerate(widths))
        self.down = nn.ModuleList(Conv(design, fine, coarse, level) for level, fine, coarse in steps)
        self.classifiers = nn.ModuleList(Classifier(design, c, classes, bias=c == widths[-1]) for c in widths)
        self.unpool = nn.ModuleList(Unpool(level) for level in range(levels - 1))
        self.add = Add()

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(sites, features), at -> logits (sites, classes)."""
        x = self.blocks[0](self.stem(x, at), at)
        logits = [self.classifiers[0](x)]
        for down, blocks, classifier in zip(self.down, self.blocks[1:], self.classifiers[1:], strict=True):
            x = blocks(down(x, at), at)
            logits.append(classifier(x))
        total = logits.pop()
        for unpool in reversed(self.unpool):
            total = self.add(logits.pop(), unpool(total, at))
        return total
