"""The notebook runs from top to bottom and is stored without outputs."""

import json
import re

import pytest


def test_tour(root, monkeypatch):
    # Kernels would run in Triton's interpreter. The notebook uses none.
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    for name in ('ipykernel', 'matplotlib', 'mmdet'):
        pytest.importorskip(name)
    notebook = nbformat.read(root / 'demo' / 'tour.ipynb', as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=200, kernel_name='python3',
        resources=dict(metadata=dict(path=root / 'demo'))).execute()
    outputs = [output for cell in notebook.cells
               for output in cell.get('outputs', [])]
    pictures = [kind for output in outputs for kind in output.get('data', [])
                if kind.startswith('image/')]
    assert sorted(pictures) == ['image/jpeg'] * 2 + ['image/png'] * 2
    text = ''.join(output.get('text', '') for output in outputs)
    assert 'b5: 75.75 M parameters, 12.23 GMACs' in text
    assert 'torch    :' in text and 'reference:' in text
    assert 'is refused: its pickle asks for' in text
    assert re.search(r'^(disc|ring|star) 0\.\d\d', text, re.MULTILINE)


def test_what_is_stored(root):
    text = (root / 'demo' / 'tour.ipynb').read_text('utf-8')
    for cell in json.loads(text)['cells']:
        assert not cell.get('outputs') and not cell.get('execution_count')
    for target in re.findall(r'\]\((\.\./[^)#]+)\)', text):
        assert (root / 'demo' / target).exists(), target
