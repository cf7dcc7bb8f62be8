"""The notebook runs from top to bottom, and gives what is stored in it."""

import json
import re

import pytest


def kinds(cell):
    """Of the outputs of a cell: text that is printed, or types of pictures."""
    return {kind for output in cell.get('outputs', [])
            for kind in output.get('data', [output.get('name')])}


def test_tour(root, monkeypatch):
    # Kernels are tested in Triton's interpreter; here none is to run.
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    for name in ('ipykernel', 'matplotlib', 'mmdet'):
        pytest.importorskip(name)
    notebook = nbformat.read(root / 'demo' / 'tour.ipynb', as_version=4)
    stored = [kinds(cell) for cell in notebook.cells]
    nbclient.NotebookClient(
        notebook, timeout=200, kernel_name='python3',
        resources=dict(metadata=dict(path=root / 'demo'))).execute()
    assert [kinds(cell) for cell in notebook.cells] == stored
    assert {'image/png', 'image/jpeg', 'stdout'} <= set().union(*stored)


def test_what_is_stored(root):
    """Outputs of one run in order, small, and of no one's machine; links."""
    text = (root / 'demo' / 'tour.ipynb').read_text('utf-8')
    assert len(text) < 200_000
    assert 'Traceback' not in text and '/tmp' not in text
    cells = [cell for cell in json.loads(text)['cells']
             if cell['cell_type'] == 'code']
    for target in re.findall(r'\]\((\.\./[^)#]+)\)', text):
        assert (root / 'demo' / target).exists(), target
    assert [cell['execution_count'] for cell in cells] == list(
        range(1, len(cells) + 1))
