"""CITATION.cff names this version and the authors of the network."""

import yaml

from mmcyclemlp.version import __version__


def test_citation(root):
    cited = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert cited['version'] == __version__
    paper, = cited['references']
    assert [one['family-names'] for one in paper['authors']] == [
        'Chen', 'Xie', 'Ge', 'Chen', 'Liang', 'Luo']
