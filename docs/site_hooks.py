"""Add pages outside docs/ to the site, and convert links.

Links are written for the repository. On the site, a link to a page leads to
the page. A link to any other file becomes the name of the file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
# Maps a page of the site to its file in the repository.
OUTSIDE = {
    'index.md': 'README.md',
    'changelog.md': 'CHANGELOG.md',
    'contributing.md': 'CONTRIBUTING.md',
    **{f'configs/{path.parent.name}.md': path.relative_to(ROOT).as_posix()
       for path in sorted(ROOT.glob('configs/*/README.md'))},
}
PAGES = {source: page for page, source in OUTSIDE.items()}
FENCE = re.compile(r'^(```.*?^```)', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'(!?)\[([^\[\]]+)\]\(([^()\s]+)\)')
ROLE = re.compile(r':(?:class|func|meth):<code>~?([\w.]+)</code>')


def on_files(files, config):
    """Add the pages outside docs/."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(
            config, page, content=(ROOT / source).read_text('utf-8')))


def on_page_markdown(markdown, page, config, files):
    """Convert links of the repository to links of the site."""
    place = page.file.src_uri
    source = OUTSIDE.get(place, f'docs/{place}')
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _moved(link, source, place), part)
                  for part in parts[::2]]
    return ''.join(parts)


def _moved(link, source, place):
    mark, label, target = link.groups()
    path, _, anchor = target.partition('#')
    if not path or ':' in path:
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (ROOT / path).is_dir():
        path += '/README.md'
    if path in PAGES:
        path = PAGES[path]
    elif path.startswith('docs/'):
        path = path[len('docs/'):]
    elif (ROOT / path).exists():
        return label if ' ' in label or '`' in label else f'`{label}`'
    path = posixpath.relpath(path, posixpath.dirname(place) or '.')
    return f'{mark}[{label}]({path}{"#" * bool(anchor)}{anchor})'


def on_page_content(html, page, config, files):
    """Convert the Sphinx roles of docstrings to links."""
    return ROLE.sub(
        lambda role: f'<autoref identifier="{role[1]}" optional><code>'
        f'{role[1].rpartition(".")[2]}</code></autoref>', html)
