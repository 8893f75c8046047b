"""Owns the list of methods: one line each."""

from edge_runtime.errors import ConfigError
from trainer.models.cflow import CFlowMethod
from trainer.models.csflow import CSFlowMethod
from trainer.models.draem import DRAEMMethod
from trainer.models.efficientad import EfficientADMethod
from trainer.models.fastflow import FastFlowMethod
from trainer.models.gaussian_ad import GaussianADMethod
from trainer.models.lunar import LUNARMethod
from trainer.models.method import Method
from trainer.models.padim import PaDiMMethod
from trainer.models.patchcore import PatchCoreMethod
from trainer.models.spade import SPADEMethod

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        PatchCoreMethod(),
        PaDiMMethod(),
        SPADEMethod(),
        LUNARMethod(),
        GaussianADMethod(),
        FastFlowMethod(),
        CFlowMethod(),
        CSFlowMethod(),
        DRAEMMethod(),
        EfficientADMethod(name="efficientad_s", size="small"),
        EfficientADMethod(name="efficientad_m", size="medium"),
    )
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        message = f"--method {name}: there are {', '.join(METHODS)}"
        raise ConfigError(message)
    return METHODS[name]
