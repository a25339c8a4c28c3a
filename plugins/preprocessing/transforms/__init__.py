"""The transforms that a manifest can name."""

from collections.abc import Callable

from plugins.preprocessing.transforms.augment import Augment
from plugins.preprocessing.transforms.base import Transform
from plugins.preprocessing.transforms.encode import Encode
from plugins.preprocessing.transforms.flatten import Flatten
from plugins.preprocessing.transforms.impute import Impute
from plugins.preprocessing.transforms.scaling import Normalise, Standardise
from plugins.preprocessing.transforms.tokens import Tokens
from plugins.preprocessing.transforms.window import Window

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "impute": Impute,
    "standardise": Standardise,
    "normalise": Normalise,
    "encode": Encode,
    "tokens": Tokens,
    "window": Window,
    "augment": Augment,
    "flatten": Flatten,
}

__all__ = ["TRANSFORMS", "Transform"]
