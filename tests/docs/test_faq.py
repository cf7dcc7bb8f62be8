"""The messages of ours that docs/faq.md quotes are still printed so."""

import ast
import re

import pytest

VARIES = '\0'


@pytest.fixture(scope='module')
def texts(root):
    """All texts of the package, with a mark where something is put in."""
    found = []
    for path in root.glob('mmcyclemlp/**/*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.JoinedStr):
                found.append(''.join(
                    part.value if isinstance(part, ast.Constant) else VARIES
                    for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(
                    node.value, str):
                found.append(node.value)
    return '\n'.join(found)


def test_quoted_errors(root, texts):
    page = (root / 'docs' / 'faq.md').read_text('utf-8')
    quoted = re.findall(r'^    error: (.*)', page, flags=re.MULTILINE)
    quoted += re.findall(r'^### `(… is refused.*)`', page, flags=re.MULTILINE)
    assert len(quoted) == 6
    for message in quoted:
        for part in message.split('…'):
            part = part.strip(' ()')
            assert part in texts, f'{part!r} of {message!r}'
