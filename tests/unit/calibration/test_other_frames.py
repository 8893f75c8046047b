"""A model on frames of another size: what follows from it, and which models cannot."""

from typing import Any

import pytest

from calibration.other_frames import on_frames_of
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.recipe import BackgroundSpec
from edge_runtime.errors import ConfigError
from edge_runtime.imaging.frames import Size


def tiled(manifest: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401
    """The small bundle's manifest, cut into four tiles at half scale."""
    values = manifest.model_dump()
    values["tiling"]["core"] = {"width": 32, "height": 32}
    values["geometry"]["regions"][0]["plane"] = {"width": 48, "height": 48}
    side = changes.get("tiling__core", {"width": 32})["width"]
    for artefact in values["artefacts"]:
        artefact["graphs"][0].update(width=side, height=side)
        artefact["thresholds"]["frame"]["tile_order"] = (2, 0, 1, 3) if "tiling__core" not in changes else ()
    for path, value in changes.items():
        *parents, last = path.split("__")
        into = values
        for key in parents:
            into = into[int(key)] if key.isdigit() else into[key]
        into[last] = value
    return Manifest.model_validate(values)


def test_the_plane_keeps_its_scale_and_the_crop_is_the_whole_frame(manifest: Manifest) -> None:
    renewed = on_frames_of(tiled(manifest), Size(400, 101))
    Manifest.model_validate(renewed.model_dump())
    (region,) = renewed.geometry.regions
    assert renewed.geometry.frame.size == Size(400, 101)
    assert (region.crop.x1, region.crop.y1, region.crop.size) == (0, 0, Size(400, 101))
    assert region.plane.size == Size(200, 50)
    assert renewed.tiling == tiled(manifest).tiling


def test_a_background_of_the_old_places_is_refused(manifest: Manifest) -> None:
    spec = BackgroundSpec(frames=20, gain=1.2, members={"frame": "background/frame.npy"})
    policy = manifest.map_policy.model_copy(update={"background": spec})
    with pytest.raises(ConfigError, match="every place of 96x96: build with --background off"):
        on_frames_of(tiled(manifest).model_copy(update={"map_policy": policy}), Size(400, 101))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiling__position_bound": True}, "keeps statistics for every place of 96x96"),
        ({"tiling__core": {"width": 48, "height": 48}}, "sees a frame of 96x96 as one input of 48x48"),
        ({"tiling__core": {"width": 64, "height": 64}}, "sees a frame of 96x96 as one input of 64x64"),
        ({"geometry__regions__0__crop__x2": 90}, "regions of its own frame \\(frame\\)"),
        ({"geometry__regions__0__polygon": ((0, 0), (9, 0), (9, 9))}, "regions of its own frame \\(frame\\)"),
    ],
)
def test_what_belongs_to_the_old_frame_is_refused(manifest: Manifest, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        on_frames_of(tiled(manifest, **changes), Size(400, 101))
