"""Every binarizer: what a binary layer does to its inputs and to its latent weights; a table is in docs/binarizers.md.

sign(0) = +1 everywhere: one bit can't hold a zero.
"""

from __future__ import annotations

from popcloud.learn.binarizers.base import Binarizer, Frozen
from popcloud.learn.binarizers.classic import BiReal, Bnn, IrNet, Lsr, ReAct, Xnor
from popcloud.learn.binarizers.gated import RealToBinary
from popcloud.learn.binarizers.poem import Poem
from popcloud.learn.binarizers.scaled import DoReFa, Lab, XnorPlusPlus
from popcloud.learn.binarizers.several import Abc3, Abc5, AbcNet
from popcloud.learn.binarizers.signs import ApproxSign, EdeSign, RSign, SteSign, signs

__all__ = [
    "BINARIZERS",
    "REAL",
    "Abc3",
    "Abc5",
    "AbcNet",
    "ApproxSign",
    "BiReal",
    "Binarizer",
    "Bnn",
    "DoReFa",
    "EdeSign",
    "Frozen",
    "IrNet",
    "Lab",
    "Lsr",
    "Poem",
    "RSign",
    "ReAct",
    "RealToBinary",
    "SteSign",
    "Xnor",
    "XnorPlusPlus",
    "not_sparse",
    "signs",
]

BINARIZERS: dict[str, type[Binarizer]] = {
    "bnn": Bnn,
    "xnor": Xnor,
    "bireal": BiReal,
    "irnet": IrNet,
    "lsr": Lsr,
    "react": ReAct,
    "xnorpp": XnorPlusPlus,
    "lab": Lab,
    "dorefa": DoReFa,
    "poem": Poem,
    "abc3": Abc3,
    "abc5": Abc5,
    "r2b": RealToBinary,
}

REAL = "real"  # the name that stands for no binarizer: the network's real-valued twin


def not_sparse(name: str) -> str:
    """Return in one line why a binarizer can't be used in convolutions over active sites; "" if it can, as `REAL`."""
    why = BINARIZERS[name].not_sparse if name in BINARIZERS else ""
    if not why:
        return ""
    fit = ", ".join(other for other, binarizer in BINARIZERS.items() if not binarizer.not_sparse)
    return f"{name!r} can't be used over active sites: {why}; choose one of {fit}"
