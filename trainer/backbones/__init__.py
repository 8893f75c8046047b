"""Feature extractors: frozen networks that turn tiles into feature maps."""

from trainer.backbones.features import Features, load_features

__all__ = ["Features", "load_features"]
