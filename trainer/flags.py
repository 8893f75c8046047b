"""Owns which settings a method can use: a flag that does nothing would be believed to do something."""

from edge_runtime.bundle.recipe import ImageScoreRule
from edge_runtime.errors import ConfigError
from trainer.config import BuildConfig
from trainer.models.method import Method
from trainer.processes import Processes

_USELESS = {
    "coreset": "keeps no memory bank",
    "backbone": "has no backbone",
    "layers": "has no backbone to take layers of",
    "weights": "has no backbone to load weights into",
    "teacher": "has no teacher",
    "textures": "needs no pictures of other things",
    "steps": "is fitted in one pass",
    "learning_rate": "is fitted in one pass",
    "width": "has no networks whose width is free",
}


def check_flags(config: BuildConfig, method: Method, processes: Processes, *, resume: bool) -> None:
    """Refuse what the method, or several processes, cannot use.

    Raises:
        ConfigError: there is one.
    """
    if resume and "steps" not in method.settings:
        message = f"--resume: {method.name} is fitted in one pass and has nothing to go on with: leave the flag out"
        raise ConfigError(message)
    if processes.count > 1 and "steps" not in method.settings:
        message = f"--method {method.name} is fitted in one pass, which several processes cannot share: start it without torchrun"
        raise ConfigError(message)
    for flag, why in _USELESS.items():
        if getattr(config, flag) is not None and flag not in method.settings:
            message = f"--{flag.replace('_', '-')}: the method {method.name} {why}: leave the flag out"
            raise ConfigError(message)
    from_graph = method.image_score is ImageScoreRule.GRAPH
    if config.background == "on" and from_graph:
        message = f"--background on: the image score of {method.name} comes from its graph and not from the map: leave the flag out"
        raise ConfigError(message)
    if config.validation is not None and method.validation == 0.0 and (from_graph or config.background == "off"):
        message = f"--validation: the method {method.name} has no use for images that are set apart: leave the flag out"
        raise ConfigError(message)
    if config.frame_graph and method.no_frame_graph:
        message = f"--frame-graph: --method {method.name}: {method.no_frame_graph}: leave the flag out, or take --method patchcore"
        raise ConfigError(message)
    moving = ",".join(kind for kind in config.augment if kind.moves)
    if moving and method.knows_places:
        message = (
            f"--augment {moving}: the method {method.name} learns what is good at every place, and a part that is mirrored or turned "
            "has it elsewhere: give light alone, or --method patchcore"
        )
        raise ConfigError(message)
