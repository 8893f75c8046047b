"""Owns `takt build`: fit, then seal, and nothing else."""

import tempfile
from pathlib import Path

from calibration.policies import parse_policy
from calibration.sealing import Sealed, seal
from edge_runtime.bundle.store import check_writable
from trainer.config import BuildConfig
from trainer.fitting import fit


def build(config: BuildConfig, dataset: Path, out: Path, *, with_report: bool = True, resume: bool = False) -> Sealed:
    """Fit a model to a data set and seal it into a bundle.

    Raises:
        TaktError: whatever `fit` and `seal` raise; no bundle is left behind.
    """
    policy = None if config.policy is None else parse_policy(config.policy)  # before the fit, not after it
    check_writable(out)
    with tempfile.TemporaryDirectory(prefix="takt-build-") as folder:
        draft = Path(folder) / "model.draft"
        opened = fit(config, dataset, draft, checkpoint=out.with_name(f"{out.name}.checkpoint"), resume=resume)
        return seal(
            draft,
            opened,
            out,
            policy=policy,
            precisions=config.precision,
            full_masks=config.full_masks,
            with_report=with_report,
        )
