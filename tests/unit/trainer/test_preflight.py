"""Before a fit: what an inspection will take is said, what does not fit is refused, and what is named instead fits."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest

from edge_runtime.bundle.recipe import TilingSpec
from edge_runtime.engines import EngineName
from edge_runtime.errors import ConfigError
from edge_runtime.preflight.trial import Trial
from trainer.config import BuildConfig, make_config
from trainer.halo import HaloChoice
from trainer.models.method import FitSettings
from trainer.plan import Plan, make_plan, replanned, valid_areas
from trainer.preflight import Preflight, check_inspection, tiles
from trainer.processes import Processes
from trainer.settings_that_fit import _plane_px, _seen_px, evenly_tiled
from trainer.shares import smaller_settings

TILED = {"tile": 32, "halo": 32}


@dataclass(frozen=True, slots=True)
class Modelled(Preflight):
    """A machine that takes a microsecond for each pixel that a graph sees, twice that for PaDiM, and a MB for 1000 at once."""

    tried: list[BuildConfig] = field(default_factory=list)

    def foresee(self, plan: Plan) -> Trial:
        """By the pixels."""
        self.tried.append(plan.config)
        costly = 1 if plan.method.name == "patchcore" else 2
        graph = plan.recipe.graph_shape(image_score=False)
        batches = -(-tiles(plan) // plan.recipe.tiling.batch)
        seen_ms = costly * _seen_px(plan) / 1000
        return Trial(
            batches=batches,
            batch_ms=seen_ms / batches,
            latency_ms=seen_ms + _plane_px(plan) / 1e6,
            memory_mb=50 + graph.batch * graph.height * graph.width / 1000,
        )


@pytest.fixture
def machine() -> Modelled:
    return Modelled(EngineName.OPENVINO, FitSettings(seed=0), lambda _: pytest.fail("nothing is fitted"))


@pytest.fixture
def planned(small: Any) -> Callable[..., Plan]:  # noqa: ANN401
    def plan(**flags: Any) -> Plan:  # noqa: ANN401
        return make_plan(make_config({"backbone": "gabor", "workers": 0, **flags}, None), small.dataset, Processes())

    return plan


def test_one_tile_without_a_budget_is_not_tried(planned: Callable[..., Plan], machine: Modelled) -> None:
    check_inspection(planned(size=[96, 96]), machine)
    assert machine.tried == []


def test_several_tiles_are_tried_and_what_they_take_is_said(
    planned: Callable[..., Plan], machine: Modelled, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("takt").propagate = True
    with caplog.at_level(logging.INFO, logger="takt"):
        check_inspection(planned(**TILED), machine)
    (said,) = {record.message for record in caplog.records if record.name == "takt"}  # another test may listen as well
    assert said.startswith("patchcore: a frame of 96x96 in 9 tile(s) of 32x32 with a halo of 32: ")
    assert said.endswith(": an inspection takes about 111 ms and 87 MB here, with openvino")


@pytest.mark.parametrize(("tile", "named"), [([64, 80], "48x48"), (64, "48x48"), (48, None), ([96, 64], "96x48")])
def test_tiles_that_divide_the_frame_are_named_where_the_last_ones_reach_beyond_it(
    planned: Callable[..., Plan],
    machine: Modelled,
    caplog: pytest.LogCaptureFixture,
    tile: int | list[int],
    named: str | None,
) -> None:
    logging.getLogger("takt").propagate = True
    plan = planned(tile=tile, halo=0)
    with caplog.at_level(logging.INFO, logger="takt"):
        check_inspection(plan, machine)
    said = {record.message for record in caplog.records if "reach beyond" in record.message}
    if named is None:
        assert not said
        return
    (line,) = said
    core = named.split("x")
    even = planned(tile=[int(core[0]), int(core[1])], halo=0)
    assert tiles(even) == tiles(plan)
    assert f"--tile {named} takes as many, and {100 * (1 - _seen_px(even) / _seen_px(plan)):.0f} % fewer pixels" in line


def test_a_core_that_divides_the_frame_is_tried_first(planned: Callable[..., Plan], machine: Modelled) -> None:
    said = refused(planned(tile=64, halo=32, deadline_ms=60), machine)
    assert "the nearest setting that fits: --tile 48x48 (predicted 50.2 ms" in said
    assert machine.tried[1].tile == (48, 48)


def refused(plan: Plan, machine: Modelled) -> str:
    with pytest.raises(ConfigError) as caught:
        check_inspection(plan, machine)
    return str(caught.value)


def test_larger_tiles_are_named_first_where_halos_are_what_takes_long(
    planned: Callable[..., Plan], machine: Modelled
) -> None:
    said = refused(planned(**TILED, deadline_ms=100), machine)
    assert "an inspection takes 111 ms, --deadline-ms is 100 (predicted, with openvino on this machine)" in said
    assert (
        "the nearest setting that fits: --tile 48x48 (predicted 50.2 ms and 100 MB)" in said
    )  # of 64, which divides 96


def test_sides_grow_by_themselves_where_the_frame_is_no_longer_than_one(
    planned: Callable[..., Plan], machine: Modelled
) -> None:
    said = refused(planned(tile=[96, 32], halo=32, deadline_ms=60), machine)
    assert "the nearest setting that fits: --tile 96x48 (predicted 53.8 ms" in said


def test_tiles_that_are_turned_stay_square(planned: Callable[..., Plan]) -> None:
    plan = planned(tile=64, halo=0, crop=[0, 0, 96, 32], augment=["turn"])
    even = evenly_tiled(plan)
    assert even is not None
    assert even.tile == (48, 48)
    assert make_config(even.model_dump(mode="json"), None) == even  # what is named is not refused


def test_a_setting_whose_frame_graph_would_be_refused_is_not_named(
    planned: Callable[..., Plan], machine: Modelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(_: HaloChoice, tiling: TilingSpec) -> None:
        if tiling.core.size == (48, 48):
            message = "not exact there"
            raise ConfigError(message)

    monkeypatch.setattr(HaloChoice, "require_exact", require)
    said = refused(planned(**TILED, frame_graph=True, deadline_ms=100), machine)
    assert "--tile 48x48" not in said
    assert "the nearest setting that fits: --scale" in said


def test_padim_that_is_too_large_is_offered_tiles_that_divide_the_frame_before_smaller_pictures(
    planned: Callable[..., Plan],
) -> None:
    plan = planned(method="padim", tile=64, halo=16)
    ways = smaller_settings(plan, valid_areas(plan.members)).ways()

    (even, data), (scale, _) = islice(ways, 2)

    assert (even, scale) == ("--tile 48x48 --halo 16", "--scale 0.95")
    assert data.fit.grid[0] * data.fit.grid[1] == (80 / 4) ** 2


def test_the_scale_that_fits_is_computed_where_no_tiles_do(planned: Callable[..., Plan], machine: Modelled) -> None:
    plan = planned(tile=32, halo=0, scale=1.0, deadline_ms=5)
    said = refused(plan, machine)
    assert "the nearest setting that fits: --scale 0." in said
    assert machine.foresee(replanned(plan, machine.tried[-1])).latency_ms <= 5


def test_a_smaller_input_is_named_where_a_frame_is_one_tile(planned: Callable[..., Plan], machine: Modelled) -> None:
    said = refused(planned(size=[96, 96], deadline_ms=5), machine)
    assert "an inspection takes 9.23 ms" in said
    assert "the nearest setting that fits: --size 64x64" in said


def test_smaller_tiles_are_named_where_memory_does_not_fit(planned: Callable[..., Plan], machine: Modelled) -> None:
    said = refused(planned(tile=64, halo=0, memory_mb=60), machine)
    assert "takes 66 MB, --memory-mb is 60" in said
    assert "the nearest setting that fits: --tile 48x48 (predicted 9.23 ms and 59 MB)" in said
    said = refused(planned(tile=64, halo=0, memory_mb=55), machine)
    assert "the nearest setting that fits: --tile 32x32 (predicted 12.3 ms and 54 MB)" in said


def test_the_cheapest_method_is_named_where_pixels_do_not_help(
    planned: Callable[..., Plan], machine: Modelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.settings_that_fit._SHRINKS", ())
    said = refused(planned(method="padim", size=[96, 96], deadline_ms=15), machine)
    assert "the nearest setting that fits: --method patchcore" in said


def test_where_nothing_fits_it_is_said_what_was_tried(planned: Callable[..., Plan], machine: Modelled) -> None:
    said = refused(planned(tile=64, halo=0, memory_mb=10), machine)
    assert "nothing near fits, tried: --tile 48x48; --tile 32x32" in said
    assert "raise the budget" in said


def test_what_is_named_was_tried_itself(planned: Callable[..., Plan], machine: Modelled) -> None:
    """The model of pixels only says where to look: a candidate that a trial does not confirm is passed over."""
    plan = planned(tile=32, halo=0, scale=1.0, deadline_ms=5)

    @dataclass(frozen=True, slots=True)
    class Slower(Modelled):
        """A machine on which the first candidate takes long against all expectation."""

        def foresee(self, plan: Plan) -> Trial:
            found = Modelled.foresee(self, plan)
            return found.model_copy(update={"latency_ms": 99.0}) if len(self.tried) == 2 else found

    slower = Slower(machine.engine, machine.settings, machine.data)
    said = refused(plan, slower)
    assert len(slower.tried) == 3
    assert f"--scale {slower.tried[2].scale:g} (predicted" in said


def test_a_measured_halo_is_kept_for_what_is_tried_and_named_with_it(
    planned: Callable[..., Plan], machine: Modelled
) -> None:
    plan = planned(tile=32, deadline_ms=100)
    said = refused(plan, machine)
    assert plan.recipe.tiling.halo > 0
    assert {config.halo for config in machine.tried} == {plan.recipe.tiling.halo}
    assert f" --halo {plan.recipe.tiling.halo} (predicted" in said


def test_smaller_tiles_get_a_halo_where_the_one_tile_needed_none(
    planned: Callable[..., Plan], machine: Modelled
) -> None:
    said = refused(planned(tile=96, memory_mb=55), machine)
    first, smaller = machine.tried[:2]
    assert (first.tile, first.halo) == ((96, 96), 0)
    assert smaller.tile == (48, 48)
    assert smaller.halo
    assert "--halo" not in said


@pytest.mark.parametrize(
    ("flags", "side"), [({"size": [64, 64]}, "--size"), (TILED, "--scale"), (TILED | {"method": "padim"}, "--scale")]
)
def test_what_is_too_large_is_made_smaller_by_the_flag_that_such_a_build_takes(
    planned: Callable[..., Plan], flags: dict[str, Any], side: str
) -> None:
    plan = planned(**flags)
    assert smaller_settings(plan, valid_areas(plan.members)).side == side
