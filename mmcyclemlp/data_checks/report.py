"""The report that all checks add their findings to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong or worth knowing, with all that have it.

    Attributes:
        kind (str): What it is, in a few words.
        message (str): One line: what, where, how often, and the remedy.
        names (tuple): All files or entries that are concerned.
        error (bool): Whether training would crash, learn wrongly or leave
            out ground truth that was meant to be used. Otherwise it is a
            remark: data that people train on has such things.
        split (str): 'train', 'val' or 'test'.
    """

    kind: str
    message: str
    names: tuple = ()
    error: bool = True
    split: str = ''


class Report:
    """Findings of all checks, in order and each once.

    Attributes:
        findings (list[Finding]): All findings.
        split (str): The split that is checked, which new findings name.
        wrong (set[str]): Kinds of the errors of the annotations that are
            checked. They cause other errors, which are not reported then.
    """

    def __init__(self):
        self.findings = []
        self.split = ''
        self.wrong = set()
        self._seen = set()

    def add(self, kind: str, message: str, names: Iterable = (),
            error: bool = True) -> None:
        """Add an error or a remark, unless it is there already."""
        if error:
            self.wrong.add(kind)
        if (self.split, kind, message) not in self._seen:
            self._seen.add((self.split, kind, message))
            self.findings.append(
                Finding(kind, message, tuple(names), error, self.split))

    def error(self, kind: str, message: str, names: Iterable = ()) -> None:
        """Add what a run would fail on or learn wrongly."""
        self.add(kind, message, names)

    def remark(self, kind: str, message: str, names: Iterable = ()) -> None:
        """Add what is only worth knowing."""
        self.add(kind, message, names, error=False)


def some(names: Iterable) -> str:
    """Return the first five names as text, 'none' if there are none."""
    names = [str(name) for name in names] or ['none']
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return ', '.join(names[:5]) + more
