"""Kernel templates: each turns a kernel of the IR into the text of a C function.

``TEMPLATES`` is the order in which they are asked; the loop nest takes whatever the others refuse.
"""

from backends.opencl.templates.base import Template
from backends.opencl.templates.conv import Convolution, ConvolutionWeightSums
from backends.opencl.templates.matmul import Matmul
from backends.opencl.templates.nest import Nest

TEMPLATES: tuple[Template, ...] = (Convolution(), ConvolutionWeightSums(), Matmul(), Nest())
BY_NAME: dict[str, Template] = {t.name: t for t in TEMPLATES}

__all__ = ["TEMPLATES", "BY_NAME", "Template"]
