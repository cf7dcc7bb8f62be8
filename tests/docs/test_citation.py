"""CITATION.cff is of this version, and names those whose network it is."""

import re

import mmcyclemlp


def test_citation(root):
    text = (root / 'CITATION.cff').read_text('utf-8')
    version, = re.findall(r'^version: (.*)', text, flags=re.MULTILINE)
    assert version == mmcyclemlp.__version__
    assert re.findall(r'family-names: (\w+)', text) == [
        'Chen', 'Xie', 'Ge', 'Chen', 'Liang', 'Luo']
