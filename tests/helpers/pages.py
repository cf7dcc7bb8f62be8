"""The Markdown files of the repository."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    ROOT / name for name in subprocess.run(
        ['git', 'ls-files', '*.md'], cwd=ROOT, capture_output=True,
        text=True).stdout.split()) or sorted(ROOT.glob('docs/*.md'))


def name_of(page):
    """Return the path of a page below the root, to name a test."""
    return str(page.relative_to(ROOT))
