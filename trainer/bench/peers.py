"""Owns the peer's figures: anomalib 2.7 on the same images and weights, the mean of 3 seeds.

256x256, ResNet-18, run in torch, the map upsampled to the frame; PatchCore with a coreset of 2 % (ball_screw: 0.5 %) of
layers 2 and 3.
"""

from typing import NamedTuple


class Figures(NamedTuple):
    """What a method reaches on a set; None where the set has no masks."""

    image_auroc: float
    pixel_auroc: float | None
    pixel_ap: float | None


ANOMALIB: dict[tuple[str, str], Figures] = {
    ("cookies", "padim"): Figures(0.990, 0.920, 0.139),
    ("paper_bdp01", "padim"): Figures(0.997, 0.984, 0.521),
    ("paper_brg01", "padim"): Figures(0.949, 0.979, 0.549),
    ("paper_flr01", "padim"): Figures(1.000, 0.992, 0.714),
    ("paper_btn01", "padim"): Figures(0.989, 0.990, 0.366),
    ("ball_screw", "padim"): Figures(0.857, 0.982, 0.551),
    ("cubes", "padim"): Figures(1.000, None, None),
    ("cookies", "patchcore"): Figures(0.988, 0.960, 0.328),
    ("paper_bdp01", "patchcore"): Figures(1.000, 0.974, 0.446),
    ("paper_brg01", "patchcore"): Figures(1.000, 0.959, 0.521),
    ("paper_flr01", "patchcore"): Figures(1.000, 0.984, 0.633),
    ("paper_btn01", "patchcore"): Figures(0.999, 0.983, 0.305),
    ("ball_screw", "patchcore"): Figures(0.874, 0.972, 0.453),
    ("cubes", "patchcore"): Figures(1.000, None, None),
}

SETS = tuple(dict.fromkeys(name for name, _ in ANOMALIB))
