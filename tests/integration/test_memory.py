"""What would not fit into memory is refused with the number, before a feature is computed."""

import pytest

from edge_runtime.errors import ConfigError
from trainer.config import make_config
from trainer.fitting import fit


def test_padim_on_a_huge_plane_is_refused_with_the_memory_it_would_take(small, tmp_path) -> None:  # noqa: ANN001 - fixtures
    flags = {"method": "padim", "backbone": "gabor", "size": [8192, 8192]}

    with pytest.raises(ConfigError, match=r"needs 468\.8 GiB for this fit, .* are free"):
        fit(make_config(flags, None), small.dataset, tmp_path / "huge.draft")

    assert list(tmp_path.iterdir()) == []
