"""Folders of images, one for each class; needs Pillow (the extra `images`).

    data/birds/sparrow/0001.jpg, data/birds/wren/0001.png …

The manifest has the classes in the order that all peers use, and the size that every image is brought to. A
peer that has no images of a class has no folder for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from federated.errors import DataError, PluginError
from federated.parameters import Array
from federated.plugin import checked_settings
from plugins.preprocessing.files import files_below, one_line, reading
from plugins.preprocessing.source import HOLDOUT, FileSource, Name, Share, Steps
from plugins.preprocessing.table import MAX_BYTES, Table, draws, listing, make_table
from plugins.preprocessing.transforms.encode import Categories

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".gif", ".webp")
MAX_PIXELS = 1 << 26  # of one image before it is made smaller
MAX_SIDE = 1 << 12  # pixels, afterwards
WHITE = 255

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Images(FileSource):
    """The preprocessor: float32 from 0 to 1, of shape (n, height, width, 3), with `grey` without the 3."""

    @checked_settings
    def __init__(
        self,
        *,
        path: Name,
        classes: Categories,
        size: Annotated[Sequence[Side], Field(min_length=2, max_length=2)],
        grey: bool = False,
        holdout: Share = HOLDOUT,
        holdout_path: Name | None = None,
        follow: bool = False,
        transforms: Steps = (),
    ) -> None:
        """`size` is height and width in pixels."""
        super().__init__(path, holdout_path, transforms=transforms, holdout=holdout, follow=follow)
        if len(set(classes)) != len(classes):
            raise PluginError("setting classes: a class is given twice")
        self.classes = classes
        self.size = (size[0], size[1])
        self.grey = grey

    def read_file(self, path: Path) -> Table:
        """As `FileSource.read_file`."""
        try:
            import PIL.Image  # noqa: F401  # whether it is there, before a folder is searched
        except ModuleNotFoundError as exc:
            raise DataError("image folders need the package 'Pillow': pip install 'atcp[images]'") from exc
        files = self._files(path)
        shape = self.size if self.grey else (*self.size, 3)
        size = len(files) * int(np.prod(shape)) * 4
        if size > MAX_BYTES:
            raise DataError(f"{path}: {len(files)} images take {size} bytes, over the limit of {MAX_BYTES}")
        pixels = np.empty((len(files), *shape), np.float32)
        for row, (file, _) in enumerate(files):
            pixels[row] = _pixels(file, self.size, self.grey)
        names = [file.relative_to(path).as_posix() for file, _ in files]
        drawn = np.array([draws(name, 1)[0] for name in names], np.float64)
        labels = np.array([label for _, label in files], np.int64)
        return make_table({"image": pixels}, labels, str(path), unit="image", draws=drawn)

    def _files(self, path: Path) -> list[tuple[Path, int]]:
        """Each image with its class. Raises `DataError` for a folder that is no class."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        found = []
        for file in files_below(path, SUFFIXES):
            name = file.relative_to(path).parts[0]
            if name not in numbers or file.parent == path:
                what = (
                    f"{name!r} is none of the classes" if file.parent != path else f"{name!r} is in no class"
                )
                raise DataError(f"{path}: {what}; {listing(self.classes)}")
            found.append((file, numbers[name]))
        return found


def _pixels(path: Path, size: tuple[int, int], grey: bool) -> Array:
    """One image, brought to `size`, from 0 to 1. Raises `DataError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is damaged or odd in it
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{path}: {width} x {height} pixels are over the limit of {MAX_PIXELS}")
                small = image.convert("L" if grey else "RGB").resize(
                    (size[1], size[0]), Image.Resampling.BILINEAR
                )
                values: Array = np.asarray(small, np.float32) / np.float32(WHITE)
                return values
    except DataError as exc:
        if isinstance(exc.__cause__, UnidentifiedImageError):
            raise DataError(f"{path} is no image of the kinds {', '.join(FORMATS)}") from exc
        raise
    except Exception as exc:  # Pillow raises many things over a damaged image
        raise DataError(f"{path} is a damaged image: {one_line(exc)}") from exc
