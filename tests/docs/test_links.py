"""Links in the Markdown files of the repository lead somewhere.

The tests look up files and anchors. They check only the form of absolute
URLs, because tests have no network.
"""

import re
from urllib.parse import urlsplit

import pytest
from helpers.pages import PAGES, name_of

FENCE = re.compile(r'^```[\s\S]*?^```|^(?: {4}.*\n)+', re.MULTILINE)
CODE = re.compile(r'`[^`]*`')
LINK = re.compile(r'\[[^\[\]]*\]\(([^()\s]*)\)')


def anchors(page):
    """Return the anchors of a page, as GitHub and our site make them.

    Headings of docs/api.md come from docstrings, so its directives count.
    """
    text = FENCE.sub('', page.read_text('utf-8'))
    found = set(re.findall(r'^::: ([\w.]+)', text, flags=re.MULTILINE))
    for heading in re.findall(r'^#+ (.*)', text, flags=re.MULTILINE):
        slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        while slug in found:  # no page links to a second heading of one name
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


@pytest.mark.parametrize('page', PAGES, ids=name_of)
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
