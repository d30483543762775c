"""Structure domain: differentiable operators that show vessels, airways and nodules equally in every scan.

>>> from uhrct.structure import StructureOperator
>>> StructureOperator("frangi", contrast_hu=150.0).sigma_mm
(0.7, 1.2, 2.0)
"""

from uhrct.structure.operator import KINDS, POLARITIES, StructureOperator

__all__ = ["KINDS", "POLARITIES", "StructureOperator"]
