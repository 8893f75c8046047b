"""Owns the list of methods: one line each."""

from edge_runtime.errors import ConfigError
from trainer.models.method import Method
from trainer.models.padim import PaDiMMethod
from trainer.models.patchcore import PatchCoreMethod

METHODS: dict[str, Method] = {method.name: method for method in (PatchCoreMethod(), PaDiMMethod())}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        message = f"--method {name}: there are {', '.join(METHODS)}"
        raise ConfigError(message)
    return METHODS[name]
