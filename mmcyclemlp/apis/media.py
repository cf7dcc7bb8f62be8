"""Find and open pictures and videos: files, folders, patterns and URLs.

This module imports no mm library, and OpenCV only to open a video.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import numpy as np

from ..errors import UserError
from .pictures import to_picture

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm',
          '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class UnreadableError(UserError):
    """An input cannot be used. Others may be fine."""


class Input(NamedTuple):
    """A picture or a video.

    Attributes:
        source (str): Path or URL.
        name (str): Name for its results: the shortest end of its path
            that is unique among all inputs, without suffix if possible.
        is_video (bool): Whether its suffix is that of a video.
    """

    source: str
    name: str
    is_video: bool


class Video(NamedTuple):
    """A video that is open.

    Attributes:
        fps (float): Frames per second.
        length (int): Number of frames from its header, which may be wrong.
        frames (Iterator): (H, W, 3) of uint8, BGR.
    """

    fps: float
    length: int
    frames: Iterator[np.ndarray]


def find_inputs(given: list[str], skip: str | None = None,
                suffixes: tuple = ()) -> list[Input]:
    """Find pictures and videos.

    Args:
        given (list[str]): Files, folders (searched recursively), patterns
            such as ``'*.jpg'``, or http(s) URLs.
        skip (str | None): Folder to skip, such as the one that results are
            written to. Default: None.
        suffixes (tuple[str]): Further suffixes of pictures, in lower case.
            Default: ().

    Returns:
        list[Input]: Each input once, in the given order; those of a folder
        are sorted by path.

    Raises:
        UserError: A source does not exist, or has no pictures in it.
    """
    sources = {}
    for text in given:
        for source in _expand(text, skip, suffixes):
            key = source if is_url(source) else os.path.realpath(source)
            sources.setdefault(key, source)
    names = _names(list(sources))
    return [Input(source, name, suffix_of(source) in VIDEOS)
            for source, name in zip(sources.values(), names)]


def is_url(source: str) -> bool:
    """Return whether a source is an http(s) URL."""
    return source.startswith(('http://', 'https://'))


def _expand(text, skip, suffixes):
    if is_url(text) or os.path.isfile(text):
        return [text]
    if os.path.isdir(text):
        found = [os.path.join(folder, name)
                 for folder, _, names in os.walk(text) for name in names]
    else:
        found = glob(text, recursive=True)
        if not found:
            raise UserError(f'there is no file or folder {text}, and as a '
                            'pattern it matches none')
    suffixes = tuple(dict.fromkeys(IMAGES + VIDEOS + suffixes))
    suffix = suffix_of(text)
    if not os.path.isdir(text) and suffix and not set('*?[]') & set(suffix):
        suffixes += suffix,  # of a pattern such as *.npy
    found = sorted(path for path in found if suffix_of(path) in suffixes
                   and not os.path.basename(path).startswith('.')
                   and os.path.isfile(path))
    if skip is not None:
        root = os.path.realpath(skip) + os.sep
        found = [path for path in found
                 if not os.path.realpath(path).startswith(root)]
    if not found:
        raise UserError(f'{text} has no pictures or videos in it; their '
                        f'names end in {", ".join(suffixes)}')
    return found


def suffix_of(source: str) -> str:
    """Return the suffix of a path or URL in lower case, such as '.jpg'."""
    path = urlsplit(source).path if is_url(source) else source
    return os.path.splitext(path)[1].lower()


def _names(sources):
    """Return the shortest ends of the paths that all differ."""
    paths = [_parts(source) for source in sources]
    for length in range(1, max(map(len, paths)) + 1):
        whole = ['/'.join(path[-length:]) for path in paths]
        if len(set(whole)) == len(paths):
            break
    stems = [os.path.splitext(name)[0] for name in whole]
    return stems if len(set(stems)) == len(stems) else whole


def _parts(source):
    if not is_url(source):
        return Path(source).parts[1:]
    url = urlsplit(source)
    path = f'{unquote(url.path)}_{url.query}' if url.query else unquote(
        url.path)
    host = url.netloc.replace(':', '_')
    return (url.scheme, *(part for part in f'{host}/{path}'.split('/')
                          if part.strip('.')))


def read_image(source: str) -> np.ndarray:
    """Read a picture with Pillow.

    Args:
        source (str): Path or URL.

    Returns:
        np.ndarray: (H, W, 3) of uint8, BGR.

    Raises:
        UnreadableError: The file cannot be read, is truncated, or is no
            picture.
    """
    from PIL import Image, ImageOps

    try:
        with _open(source) as file:
            content = file.read()
        # Without this, Pillow takes a PNG without its end.
        Image.open(io.BytesIO(content)).verify()
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        if image.mode[0] in 'IF':  # which convert() clips to 0..255
            return to_picture(np.asarray(image))
        return np.asarray(image.convert('RGB'))[..., ::-1]
    except Exception as error:  # Pillow raises several types
        raise _unreadable(error) from error


@contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Open a video in a ``with`` block.

    Args:
        source (str): Path or URL. A URL is downloaded first.

    Yields:
        Video: It has at least one frame that can be read.

    Raises:
        UnreadableError: The file cannot be read, or is no video.
    """
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        path = source
        if is_url(source):
            path = os.path.join(folder, f'video{suffix_of(source)}')
            fetch(source, path)
        video = cv2.VideoCapture(path)
        try:
            read, first = video.read()
            if not read:
                raise UnreadableError('it is damaged or no video')
            yield Video(video.get(cv2.CAP_PROP_FPS) or 25.,
                        int(video.get(cv2.CAP_PROP_FRAME_COUNT)),
                        _frames(video, first))
        finally:
            video.release()


def fetch(url: str, path: str) -> None:
    """Download a file.

    Args:
        url (str): URL of the file.
        path (str): Path to write it to.

    Raises:
        UnreadableError: The file cannot be downloaded.
    """
    try:
        with _open(url) as response, open(path, 'wb') as file:
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException, ValueError) as error:
        raise _unreadable(error) from error


def _frames(video, frame):
    read = True
    while read:
        yield frame
        read, frame = video.read()


def _open(source):
    return urlopen(source, timeout=60) if is_url(source) else open(
        source, 'rb')


def _unreadable(error):
    reason = ' '.join(f'{error}'.split()) or type(error).__name__
    return UnreadableError(f'it cannot be read: {reason}')
