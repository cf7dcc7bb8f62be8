"""What a look at data has to say."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing, with all that have it.

    Attributes:
        kind (str): What it is, in a few words.
        message (str): One line: what, where, how often, and the remedy.
        names (Sequence[str]): All files or entries that are concerned.
        error (bool): Whether training would crash, learn wrongly or leave
            ground truth out that was meant to be used. Otherwise it is a
            remark: data that people train on has such things.
        split (str): 'train', 'val' or 'test'.
    """

    kind: str
    message: str
    names: tuple = ()
    error: bool = True
    split: str = ''


def some(names):
    """The first five names, 'none' if there are none."""
    names = [str(name) for name in names] or ['none']
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
