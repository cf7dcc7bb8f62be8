"""Pictures and videos to predict for: files, folders, patterns and URLs."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from glob import glob
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import cv2

from ..data_checks.images import decode
from ..errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm',
          '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class UnreadableError(UserError):
    """Nothing can be predicted for an input, and why; for others it may."""


class Input(NamedTuple):
    """A picture or a video.

    Attributes:
        source (str): Path or URL.
        name (str): What its results are called: as much of the end of its
            path as tells all inputs apart, without suffix if that will do.
        is_video (bool): Whether it is a video, by its suffix.
    """

    source: str
    name: str
    is_video: bool


class Video(NamedTuple):
    """A video that is open.

    Attributes:
        fps (float): Frames a second.
        length (int): How many frames it says it has; may be wrong.
        frames (Iterator): (H, W, 3) of uint8, BGR.
    """

    fps: float
    length: int
    frames: Any


def find_inputs(given, leave_out=None, suffixes=()):
    """Find pictures and videos.

    Args:
        given (list[str]): Files, folders (with all below them), patterns
            such as ``'*.jpg'``, http(s) URLs.
        leave_out (str | None): Folder whose files are no inputs, though it
            may lie in one: where results go. Default: None.
        suffixes (tuple[str]): More suffixes of files that are pictures, in
            lower case. Default: ().

    Returns:
        list[Input]: Each once, in the order given and by name.

    Raises:
        UserError: Something does not exist, or has no pictures in it.
    """
    sources = {}
    for text in given:
        for source in _expand(text, leave_out, suffixes):
            key = source if is_url(source) else os.path.realpath(source)
            sources.setdefault(key, source)
    names = _names(list(sources))
    return [Input(source, name, suffix_of(source) in VIDEOS)
            for source, name in zip(sources.values(), names)]


def is_url(source):
    """Whether a source is an http(s) URL."""
    return source.startswith(('http://', 'https://'))


def _expand(text, leave_out, suffixes):
    if is_url(text) or os.path.isfile(text):
        return [text]
    if os.path.isdir(text):
        found = [os.path.join(folder, name)
                 for folder, _, names in os.walk(text) for name in names]
    else:
        found = glob(text, recursive=True)
        if not found:
            raise UserError(f'there is no file or folder {text}, and as a '
                            'pattern it fits none')
    suffixes = tuple(dict.fromkeys(IMAGES + VIDEOS + suffixes))
    asked = suffix_of(text)
    if not os.path.isdir(text) and asked and not set('*?[]') & set(asked):
        suffixes += asked,  # a pattern that names its suffix
    found = sorted(path for path in found if suffix_of(path) in suffixes
                   and not os.path.basename(path).startswith('.')
                   and os.path.isfile(path))
    if leave_out is not None:
        root = os.path.realpath(leave_out) + os.sep
        found = [path for path in found
                 if not os.path.realpath(path).startswith(root)]
    if not found:
        raise UserError(f'{text} has no pictures or videos in it, which end '
                        f'in {", ".join(suffixes)}')
    return found


def suffix_of(source):
    """Suffix of a path or URL, such as '.jpg', in lower case."""
    path = urlsplit(source).path if is_url(source) else source
    return os.path.splitext(path)[1].lower()


def _names(sources):
    """As much of the end of each path as makes all of them differ."""
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


def read_image(source):
    """Read a picture whole.

    Args:
        source (str): Path or URL.

    Returns:
        np.ndarray: (H, W, 3) of uint8, BGR.

    Raises:
        UnreadableError: It cannot be read, or is none.
    """
    try:
        with _open(source) as file:
            return decode(file.read(), 'color', 'cv2')
    except Exception as error:  # decoders raise what they like
        raise _unreadable(error) from error


@contextmanager
def open_video(source):
    """Open a video; closed at the end of the block.

    Args:
        source (str): Path or URL; the latter is downloaded first.

    Yields:
        Video: At least one frame of it can be read.

    Raises:
        UnreadableError: It cannot be read, or is none.
    """
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


def fetch(url, path):
    """Download a file.

    Args:
        url (str): What to download.
        path (str): Where to write it.

    Raises:
        UnreadableError: It cannot be downloaded.
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
