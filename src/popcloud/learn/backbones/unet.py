"""The U-Net over active sites, real-valued and binary from one class.

UNET-S and UNET-H of BSC-Net (Xu et al., CVPR 2023, supplementary): 7 levels, width times level, 1 or 2 SSC blocks a
level on either side. Their host, inferred from the matching widths, is SparseConvNet's U-Net for ScanNet (Graham et
al. 2018): pre-activated, skips by concatenation.
"""

from __future__ import annotations

from torch import Tensor, nn

from popcloud.learn.designs import Conv, DeConv, Design, SscBlocks
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.sparse_layers import Join


class UNet(nn.Module):
    """Logits for every active site: rows (sites, features) and their pyramid -> (sites, classes).

    width     channels of the finest level; level l has (l + 1) * width
    blocks    SSC blocks of each level, on the way down and up
    levels    of the pyramid the network is called with
    """

    def __init__(self, design: Design, *, classes: int, features: int, width: int, blocks: int, levels: int = 7):
        super().__init__()
        self.levels, self.size, self.features, self.classes = levels, design.size, features, classes
        widths = [width * (level + 1) for level in range(levels)]
        steps = list(zip(range(levels - 1), widths, widths[1:], strict=False))
        self.stem = design.stem(features, width)
        self.encoder = nn.ModuleList(SscBlocks(design, c, c, level, blocks) for level, c in enumerate(widths))
        self.down = nn.ModuleList(Conv(design, fine, coarse, level) for level, fine, coarse in steps)
        self.up = nn.ModuleList(DeConv(design, coarse, fine, level) for level, fine, coarse in steps)
        self.join = Join()
        self.decoder = nn.ModuleList(SscBlocks(design, 2 * fine, fine, level, blocks) for level, fine, _ in steps)
        self.head = design.head(width)
        self.classifier = design.pointwise(width, classes, norm=False)

    def forward(self, x: Tensor, at: TensorPyramid) -> Tensor:
        """(sites, features), at -> logits (sites, classes)."""
        x = self.encoder[0](self.stem(x, at), at)
        skips = []
        for down, blocks in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = blocks(down(x, at), at)
        for level in reversed(range(self.levels - 1)):
            x = self.decoder[level](self.join(skips[level], self.up[level](x, at)), at)
        return self.classifier(x if self.head is None else self.head(x))
