"""The snippets of docs/plain_pytorch.md run and print what they say."""

import re
from importlib.util import find_spec

import pytest


@pytest.fixture
def snippets(root):
    page = (root / 'docs' / 'plain_pytorch.md').read_text()
    return re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)


def run(snippets, capsys):
    names = {}
    for snippet in snippets:
        exec(snippet, names)
        printed = capsys.readouterr().out
        for line in re.findall(r'^# (.*)', snippet, re.MULTILINE):
            if not line.startswith('needs '):
                assert line.removesuffix('...') in printed
    return names


def test_alone(snippets, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = [text for text in snippets if '# needs' not in text]
    assert len(own) == len(snippets) - 2
    names = run(own, capsys)
    assert names['loss'].item() < 0.1


def test_with_torchvision_and_timm(snippets, capsys, tmp_path, monkeypatch):
    for name in ('torchvision', 'timm'):
        if find_spec(name) is None:
            pytest.skip(f'{name} is not installed')
    monkeypatch.chdir(tmp_path)
    run(snippets, capsys)
