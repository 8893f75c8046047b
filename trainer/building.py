"""Owns `takt build`: fit, then seal, and nothing else."""

import tempfile
from pathlib import Path

from calibration.policies import parse_policy
from calibration.sealing import Sealed, seal
from edge_runtime.bundle.store import check_writable
from edge_runtime.engines import EngineName
from trainer.config import BuildConfig
from trainer.fitting import fit
from trainer.processes import Processes


def build(
    config: BuildConfig,
    dataset: Path,
    out: Path,
    *,
    with_report: bool = True,
    resume: bool = False,
    processes: Processes | None = None,
) -> Sealed:
    """Fit a model to a data set and seal it into a bundle; of several processes, the others only fit.

    Raises:
        TaktError: whatever `fit` and `seal` raise; no bundle is left behind.
    """
    policy = None if config.policy is None else parse_policy(config.policy)  # before the fit, not after it
    check_writable(out)
    with tempfile.TemporaryDirectory(prefix="takt-build-") as folder:
        draft = Path(folder) / "model.draft"
        checkpoint = out.with_name(f"{out.name}.checkpoint")
        opened = fit(
            config,
            dataset,
            draft,
            checkpoint=checkpoint,
            resume=resume,
            processes=processes,
            engine=EngineName.OPENVINO,
        )
        return seal(
            draft,
            opened,
            out,
            policy=policy,
            precisions=config.precision,
            full_masks=config.full_masks,
            with_report=with_report,
        )
