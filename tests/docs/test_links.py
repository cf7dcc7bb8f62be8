"""Links and commands in the Markdown of the repository lead somewhere.

Files and anchors are looked up. Of absolute URLs only the form is checked:
tests have no network.
"""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    ROOT / name for name in subprocess.run(
        ['git', 'ls-files', '*.md'], cwd=ROOT, capture_output=True,
        text=True).stdout.split()) or sorted(ROOT.glob('docs/*.md'))
FENCE = re.compile(r'^```[\s\S]*?^```|^(?: {4}.*\n)+', re.MULTILINE)
CODE = re.compile(r'`[^`]*`')
LINK = re.compile(r'\[[^\[\]]*\]\(([^()\s]*)\)')
COMMAND = re.compile(
    r'(?:python -m mmcyclemlp |tools/)(\w+)(?:\.py)?\b'
    r'((?:[^\n`]|\\\n|\n {8})*)')


def anchors(page):
    """Of the headings, as repositories and our site make them.

    Those of the API's page come from docstrings: its directives.
    """
    text = FENCE.sub('', page.read_text('utf-8'))
    found = set(re.findall(r'^::: ([\w.]+)', text, flags=re.MULTILINE))
    for heading in re.findall(r'^#+ (.*)', text, flags=re.MULTILINE):
        slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        while slug in found:  # a second one of that name is not linked to
            slug += '-1'
        found.add(slug)
    return found


def wrong_links(page):
    text = CODE.sub('code', FENCE.sub('', page.read_text('utf-8')))
    for target in LINK.findall(text):
        if '://' in target:
            url = urlsplit(target)
            if url.scheme not in ('http', 'https') or '.' not in url.netloc:
                yield target
            continue
        path, _, anchor = target.partition('#')
        found = page.parent / path if path else page
        if not found.exists() or anchor and (
                found.suffix != '.md' or anchor not in anchors(found)):
            yield target


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    assert not list(wrong_links(page))


def test_wrong_links_are_found(tmp_path):
    (tmp_path / 'other.md').write_text('# One, two\n```\n# not a heading\n```')
    page = tmp_path / 'page.md'
    page.write_text('# Top\n[a](#top) [a](other.md#one-two) [b](https://a.b/)'
                    ' `[code](code)` [1](#bottom) ![2](gone.jpg) '
                    '[3](other.md#not-a-heading) [4](https://nowhere)')
    assert list(wrong_links(page)) == [
        '#bottom', 'gone.jpg', 'other.md#not-a-heading', 'https://nowhere']


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page):
    """Commands that pages tell to type are there, and so are their options."""
    common = (ROOT / 'mmcyclemlp' / 'engine' / 'command.py').read_text()
    for name, rest in COMMAND.findall(page.read_text('utf-8')):
        if name == 'COMMAND':
            continue
        tool = ROOT / 'tools' / f'{name}.py'
        if not tool.exists():
            tool = ROOT / 'tools' / f'{name}.sh'
        assert tool.exists(), name
        if tool.suffix == '.py':
            text = tool.read_text() + common
            for option in re.findall(r'(?<= )\[?(--[a-z][\w-]+)', rest):
                assert f"'{option}'" in text or option == '--help', (
                    f'{name} has no {option}')
