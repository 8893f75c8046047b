"""Owns the commands `takt seal`, `takt evaluate` and `takt calibrate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibration.evaluation import Evaluation
from calibration.evaluation import evaluate as evaluate_bundle
from calibration.layouts import open_dataset
from calibration.pictures import write_pictures
from calibration.policies import parse_policy
from calibration.recalibration import calibrate as calibrate_bundle
from calibration.sealing import Sealed
from calibration.sealing import seal as seal_draft
from edge_runtime.bundle.archive import Archive
from edge_runtime.bundle.training import read_training
from edge_runtime.cli import write_json
from edge_runtime.commands.arguments import Parser, folder, frame_size, positive
from edge_runtime.engines import Precision
from edge_runtime.errors import ConfigError
from edge_runtime.inspector import Inspector


def seal(arguments: Sequence[str]) -> int:
    """Seal a draft into a bundle."""
    parser = Parser(prog="takt seal", description="From a draft to a sealed bundle; needs no torch.")
    parser.add_argument("draft", type=Path, help="what `takt fit` made")
    parser.add_argument("dataset", type=Path, help="the data set that it was fitted to")
    parser.add_argument("--out", type=Path, required=True, help="the bundle to write")
    add_sealing(parser)
    parser.add_argument("--limit", type=positive, help="the --limit that the draft was fitted with")
    parser.add_argument("--seed", type=int, default=0, help="the --seed that the draft was fitted with")
    parser.add_argument(
        "--frame-graph", action="store_true", help="refuse a draft that was fitted without --frame-graph"
    )
    options = parser.parse_args(arguments)
    sealed = seal_draft(
        options.draft,
        open_dataset(options.dataset, limit=options.limit, seed=options.seed),
        options.out,
        policy=None if options.policy is None else parse_policy(options.policy),
        precisions=parse_precisions(options.precision),
        full_masks=options.full_masks,
        frame_graph=options.frame_graph,
    )
    report_sealed(sealed, options.report, as_json=options.json)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Measure a bundle on labelled images."""
    parser = Parser(prog="takt evaluate", description="Measure a bundle on labelled images that it has not seen.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--policy", help="also show the threshold that this policy would set on these images")
    parser.add_argument("--artefact", metavar="NAME", help="which artefact of the bundle to run")
    parser.add_argument("--only-wrong", action="store_true", help="report and pictures of wrong verdicts only")
    parser.add_argument("--maps", metavar="DIR", help="write raw anomaly maps, float32 .npy")
    parser.add_argument("--masks", metavar="DIR", help="write maps cut at the pixel threshold, PNG")
    parser.add_argument(
        "--full-masks", action="store_true", help="a defective image without a mask is defective all over"
    )
    parser.add_argument("--limit", type=positive, help="a seeded sample of so many images of each split")
    parser.add_argument("--seed", type=int, default=0, help="of that sample")
    parser.add_argument("--report", metavar="DIR", help="write an HTML report and a CSV table")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    outputs = {name: folder(value) for name in ("maps", "masks") if (value := getattr(options, name))}
    report_to = None if options.report is None else folder(options.report)
    policy = None if options.policy is None else parse_policy(options.policy)
    inspector = Inspector.open(options.bundle, artefact=options.artefact)
    dataset = open_dataset(options.dataset, limit=options.limit, seed=options.seed)
    found = evaluate_bundle(inspector, dataset, full_masks=options.full_masks, policy=policy)
    write_pictures(found, inspector, outputs, only_wrong=options.only_wrong)
    report = write_report(found, inspector, report_to, bundle=options.bundle, only_wrong=options.only_wrong)
    show_evaluation(found, report, as_json=options.json)
    return 0


def calibrate(arguments: Sequence[str]) -> int:
    """Set new thresholds from new images, in a new bundle."""
    parser = Parser(prog="takt calibrate", description="Set new thresholds from new images; needs no torch.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the bundle to write")
    parser.add_argument("--policy", help="how thresholds are set, such as conformal:0.01")
    parser.add_argument(
        "--frame",
        type=frame_size,
        metavar="WxH",
        help="inspect frames of another size from now on: those of the data set",
    )
    parser.add_argument("--limit", type=positive, help="a seeded sample of so many images of each split")
    parser.add_argument("--seed", type=int, default=0, help="of that sample")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    dataset = open_dataset(options.dataset, limit=options.limit, seed=options.seed)
    policy = None if options.policy is None else parse_policy(options.policy)
    sealed = calibrate_bundle(options.bundle, dataset, options.out, policy=policy, frame=options.frame)
    if sealed.n_left_out:
        sys.stderr.write(f"{sealed.n_left_out} image(s) left out: the model was fitted to them\n")
    report_sealed(sealed, None, as_json=options.json)
    return 0


def add_sealing(parser: Parser) -> None:
    """Flags that `seal` and `build` share."""
    parser.set_defaults(report=None, json=False)
    parser.add_argument("--policy", help="how thresholds are set, such as conformal:0.01, sigma:3, f1, manual:RAW")
    parser.add_argument("--precision", help="f32, or f32,bf16: an artefact for each; the first is the default")
    parser.add_argument(
        "--full-masks", action="store_true", help="a defective image without a mask is defective all over"
    )
    parser.add_argument("--report", metavar="DIR", help="write the evaluation as HTML and CSV")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def parse_precisions(text: str | None) -> tuple[Precision, ...]:
    """Precisions as the flag writes them; f32 is among them.

    Raises:
        ConfigError: one is not known, or f32 is missing.
    """
    names = ["f32"] if text is None else text.split(",")
    unknown = [name for name in names if name not in set(Precision)]
    if unknown or "f32" not in names or len(set(names)) != len(names):
        message = (
            f"--precision {text}: give f32 and any of {', '.join(Precision)}, each once (int8 is not in this release)"
        )
        raise ConfigError(message)
    return tuple(Precision(name) for name in names)


def sealed_json(sealed: Sealed, report: Path | None) -> dict[str, Any]:
    """The keys of `build`."""
    origin = sealed.manifest.provenance
    return {
        "bundle": sealed.digest,
        "path": str(sealed.path),
        "product": sealed.manifest.product,
        "method": origin.method,
        "artefacts": [
            {
                "name": artefact.name,
                "engine": artefact.engine.value,
                "precision": artefact.precision.value,
                "parity_max_abs": artefact.parity.map_max_abs,
                "parity_range": artefact.parity.map_range,
                "decision_flips": artefact.parity.decision_flips,
                "latency_ms": artefact.latency_ms,
                "graphs": [graph.role.value for graph in artefact.graphs],
                "frame_latency_ms": None if artefact.frame is None else artefact.frame.latency_ms,
            }
            for artefact in sealed.manifest.artefacts
        ],
        "evaluation": None
        if sealed.evaluation is None
        else sealed.evaluation.as_json(None if report is None else str(report)),
        "fit_s": origin.fit_seconds,
        "peak_memory_mb": origin.peak_memory_mb,
    }


def report_sealed(sealed: Sealed, report_dir: str | None, *, as_json: bool) -> None:
    """Say what was sealed, and write the report where one is wanted.

    Raises:
        ConfigError: the report cannot be written.
    """
    report = None
    if report_dir is not None and sealed.evaluation is not None:
        report = write_report(
            sealed.evaluation, sealed.inspector, folder(report_dir), bundle=sealed.path, only_wrong=False
        )
    if as_json:
        write_json(sealed_json(sealed, report))
        return
    for name, found in sealed.manifest.artefacts[0].thresholds.items():
        sys.stdout.write(f"{name}: rejects from {found.reject:.6g} ({found.policy}); guarantee: {found.guarantee}\n")
    if sealed.evaluation is not None:
        show_evaluation(sealed.evaluation, report, as_json=False)
    sys.stdout.write(f"sealed {sealed.path}, digest {sealed.digest[:16]}\n")


def write_report(
    found: Evaluation, inspector: Inspector, into: Path | None, *, bundle: Path, only_wrong: bool
) -> Path | None:
    """Write the HTML report and its table.

    Raises:
        ConfigError: it cannot be written, or the packages that draw it are missing.
        BundleError: the bundle was changed meanwhile.
    """
    if into is None:
        return None
    from calibration.report import write_report as write  # noqa: PLC0415 - needs packages that a factory PC may lack

    with Archive(bundle) as archive:
        training = read_training(archive)
    return write(found, inspector, into, only_wrong=only_wrong, training=training)


def show_evaluation(found: Evaluation, report: Path | None, *, as_json: bool) -> None:
    """Print the figures: for scripts, or for a person."""
    values = found.as_json(None if report is None else str(report))
    if as_json:
        write_json(values)
        return
    lines = [f"{values['n_good']} good, {values['n_defective']} defective ({values['n_unmasked']} without mask)"]
    lines += [_rate_line(name, values[key]) for name, key in _RATES.items()]
    figures = [f"{name} {values[key]:.3f}" for name, key in _FIGURES.items() if values[key] is not None]
    lines.append(", ".join(figures) or "no figures: they need good and defective images")
    for name, other in (values["policy_threshold"] or {}).items():
        lines.append(f"{name}: {other['policy']} on these images would reject from {other['threshold']:.6g}")
    if report is not None:
        lines.append(f"report: {report}")
    sys.stdout.write("\n".join(lines) + "\n")


_RATES = {"false rejects": "false_reject_rate", "escapes": "escape_rate"}
_FIGURES = {
    "image AUROC": "image_auroc",
    "image F1": "image_f1",
    "pixel AUROC": "pixel_auroc",
    "pixel AP": "pixel_ap",
    "AUPRO": "aupro",
}


def _rate_line(name: str, found: dict[str, float] | None) -> str:
    if found is None:
        return f"{name}: no images to tell"
    count = round(found["value"] * found["n"])
    return f"{name}: {count} of {found['n']} ({found['value']:.1%}; 95 % interval {found['low']:.1%} to {found['high']:.1%})"
