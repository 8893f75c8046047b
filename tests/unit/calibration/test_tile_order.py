"""The order of tiles is learned from good frames, and a bundle whose order is none is refused."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from support.toys import BrightnessEngine, make_recipe, make_region

from calibration.thresholds import tile_order
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.store import read_manifest
from edge_runtime.imaging.frames import Frame, PixelFormat, Size
from edge_runtime.scorer import Scorer


def test_the_tile_that_good_frames_reach_highest_on_goes_first_and_one_that_never_runs_last() -> None:
    assert tile_order([np.array([1.0, 5.0, -np.inf, 2.0]), np.array([1.0, 1.0, -np.inf, 9.0])]) == (3, 1, 0, 2)
    assert tile_order([np.array([1.0, 1.0, 1.0])]) == (0, 1, 2)
    assert tile_order([]) == ()


def test_the_peak_of_a_tile_is_that_of_its_own_cells() -> None:
    area = np.zeros((64, 64), np.bool_)
    area[:, :32] = True
    regions = (make_region("all", (0, 0, 64, 64), valid_area="area"),)
    recipe = make_recipe(frame=Size(64, 64), core=Size(16, 32), halo=8, regions=regions)
    pixels = np.full((64, 64), 40, np.uint8)
    pixels[40, 17] = 90  # of tile 5; tiles 4 and 6 see it in their halos
    scorer = Scorer(recipe, BrightnessEngine(recipe), valid_areas={"area": area})
    part = scorer.score(Frame(pixels, PixelFormat.MONO8)).regions[0]
    assert scorer.tile_peaks(part).tolist() == [40, 40, 40, -np.inf, 40, 90, 40, -np.inf]


@pytest.fixture(scope="module")
def manifest(small: object) -> Manifest:
    with Archive(small.bundle) as archive:
        return read_manifest(archive)


def test_a_sealed_bundle_knows_the_order_of_every_region_of_every_artefact(manifest: Manifest) -> None:
    for artefact in manifest.artefacts:
        for found in artefact.thresholds.values():
            assert sorted(found.tile_order) == list(range(len(found.tile_order)))
            assert found.tile_order


@pytest.mark.parametrize("spoil", [lambda n: [*range(n), n], lambda n: [*range(n - 1), n], lambda n: [0] * (n + 1)])
def test_an_order_that_is_no_permutation_of_the_plans_tiles_is_refused(manifest: Manifest, spoil: object) -> None:
    content = manifest.model_dump(mode="json")
    thresholds = next(iter(content["artefacts"][0]["thresholds"].values()))
    thresholds["tile_order"] = spoil(len(thresholds["tile_order"]))
    with pytest.raises(ValidationError, match="tile_order of region"):
        Manifest.model_validate_json(json.dumps(content))
