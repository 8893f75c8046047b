"""What would fit neither into memory nor into a bundle is refused with the number, before a feature is computed."""

from types import SimpleNamespace

import psutil
import pytest

from edge_runtime.errors import ConfigError
from trainer.config import make_config
from trainer.fitting import fit


def test_padim_on_a_large_plane_is_refused_with_the_memory_it_would_take(small, tmp_path, monkeypatch) -> None:  # noqa: ANN001 - fixtures
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    flags = {"method": "padim", "backbone": "gabor", "size": [512, 512]}

    with pytest.raises(ConfigError, match=r"needs 1\.8 GiB for this fit, 1\.0 GiB are free"):
        fit(make_config(flags, None), small.dataset, tmp_path / "large.draft")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [8, "auto"])
def test_padim_on_a_huge_plane_is_refused_with_the_graph_it_would_make(small, tmp_path, batch) -> None:  # noqa: ANN001 - fixtures
    flags = {"method": "padim", "backbone": "gabor", "size": [8192, 8192], "batch": batch}

    with pytest.raises(
        ConfigError, match=r"the graph of this fit would take 169\.\d\d GB, a bundle holds graphs of 1\.98 GB"
    ):
        fit(make_config(flags, None), small.dataset, tmp_path / "huge.draft")

    assert list(tmp_path.iterdir()) == []
