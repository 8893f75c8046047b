"""Owns the maps and masks that `takt evaluate` writes beside its figures."""

from collections.abc import Mapping
from pathlib import Path, PurePath

from calibration.evaluation import Evaluation, Judged
from calibration.samples import Label, Sample
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
    taken: set[Path] = set()
    for judged in found.judged if outputs else ():
        if only_wrong and not is_wrong(judged):
            continue
        inspection = inspector.inspect_file(judged.sample.path)
        frame_map, mask = inspector.frame_map(inspection), inspector.defect_mask(inspection)
        name = _place(judged.sample, taken)
        if frame_map is not None and "maps" in outputs:
            write_bytes(outputs["maps"] / f"{name}.npy", array_bytes(frame_map))
        if mask is not None and "masks" in outputs:
            write_bytes(outputs["masks"] / f"{name}.png", encode_png(mask))


def _place(sample: Sample, taken: set[Path]) -> Path:
    """Where an image's files go, without suffix: under its own folder, unique, never outside the output."""
    folder = PurePath(sample.folder)  # as a list names it: perhaps absolute, perhaps with `..`
    inside = Path(*(part for part in folder.parts if part not in {folder.anchor, ".."}))
    name, number = inside / sample.path.stem, 1
    while name in taken:
        number += 1
        name = inside / f"{sample.path.stem}-{number}"
    taken.add(name)
    return name
