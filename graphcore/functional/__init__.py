"""Functions of neural networks, composed of primitives, with PyTorch's names and argument order."""

from graphcore.functional.activations import *  # noqa: F403
from graphcore.functional.activations import __all__ as _activations
from graphcore.functional.attention import *  # noqa: F403
from graphcore.functional.attention import __all__ as _attention
from graphcore.functional.classification import *  # noqa: F403
from graphcore.functional.classification import __all__ as _classification
from graphcore.functional.conv import *  # noqa: F403
from graphcore.functional.conv import __all__ as _conv
from graphcore.functional.dropout import *  # noqa: F403
from graphcore.functional.dropout import __all__ as _dropout
from graphcore.functional.embedding import *  # noqa: F403
from graphcore.functional.embedding import __all__ as _embedding
from graphcore.functional.losses import *  # noqa: F403
from graphcore.functional.losses import __all__ as _losses
from graphcore.functional.norms import *  # noqa: F403
from graphcore.functional.norms import __all__ as _norms

__all__ = [*_activations, *_attention, *_classification, *_conv, *_dropout, *_embedding, *_losses, *_norms]
