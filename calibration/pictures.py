"""Owns the maps and masks that `takt evaluate` writes beside its figures."""

from collections.abc import Mapping
from pathlib import Path

from calibration.evaluation import Evaluation, Judged
from calibration.samples import Label
from edge_runtime.bundle.store import array_bytes
from edge_runtime.commands.arguments import write_bytes
from edge_runtime.decision import Verdict
from edge_runtime.imaging.frames import encode_png
from edge_runtime.inspector import Inspector


def is_wrong(judged: Judged) -> bool:
    """Whether the verdict contradicts the label; an image of unknown label is never wrong."""
    accepted = judged.inspection.verdict is Verdict.ACCEPT
    return (judged.sample.label is Label.GOOD and not accepted) or (judged.sample.label is Label.DEFECTIVE and accepted)


def write_pictures(found: Evaluation, inspector: Inspector, outputs: Mapping[str, Path], *, only_wrong: bool) -> None:
    """Write `maps` and `masks` where asked for, under the images' own folders.

    Raises:
        ConfigError: a file cannot be written.
    """
    for judged in found.judged if outputs else ():
        if only_wrong and not is_wrong(judged):
            continue
        inspection = inspector.inspect_file(judged.sample.path)
        frame_map, mask = inspector.frame_map(inspection), inspector.defect_mask(inspection)
        name = Path(judged.sample.folder) / judged.sample.path.stem
        if frame_map is not None and "maps" in outputs:
            write_bytes(outputs["maps"] / name.with_suffix(".npy"), array_bytes(frame_map))
        if mask is not None and "masks" in outputs:
            write_bytes(outputs["masks"] / name.with_suffix(".png"), encode_png(mask))
