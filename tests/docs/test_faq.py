"""docs/faq.md quotes our messages as the code has them."""

import ast
import re

import pytest

# Stands for a value that an f-string puts into a message.
VALUE = '\0'


@pytest.fixture(scope='module')
def messages(root):
    """Return all strings of the package, with VALUE for values."""
    found = set()
    for path in root.glob('mmcyclemlp/**/*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.JoinedStr):
                found.add(''.join(
                    part.value if isinstance(part, ast.Constant) else VALUE
                    for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(
                    node.value, str):
                found.add(node.value)
    return found


@pytest.fixture(scope='module')
def quoted(root):
    """Return the messages of ours that the page quotes, with … for values."""
    page = (root / 'docs' / 'faq.md').read_text('utf-8')
    found = re.findall(r'^    error: (.*)', page, flags=re.MULTILINE)
    return found + re.findall(r'^### `(… is refused.*)`', page,
                              flags=re.MULTILINE)


def is_in(message, messages):
    """Whether a string of the package starts with the message.

    Args:
        message (str): Words, with … where the code puts in values.
        messages (set[str]): Strings of the package.
    """
    pattern = re.compile('.*\0.*'.join(
        re.escape(part) for part in message.split('…')), re.DOTALL)
    return any(pattern.match(one) for one in messages)


def test_quoted_messages(quoted, messages):
    assert len(quoted) >= 6
    assert [one for one in quoted if not is_in(one, messages)] == []


def test_wrong_messages_are_found(quoted, messages):
    for message in quoted:
        longest = max(re.findall(r'\w+', message), key=len)
        assert not is_in(message.replace(longest, 'other', 1), messages)
