"""CITATION.cff is of this version, and names those whose network it is."""

import yaml

from mmcyclemlp import __version__


def test_citation(root):
    cited = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert cited['version'] == __version__
    paper, = cited['references']
    assert [one['family-names'] for one in paper['authors']] == [
        'Chen', 'Xie', 'Ge', 'Chen', 'Liang', 'Luo']


def test_forms(root):
    """What a form asks for, GitHub and we know."""
    forms = root / '.github' / 'ISSUE_TEMPLATE'
    for path in forms.glob('*.yml'):
        form = yaml.safe_load(path.read_text())
        for part in form.get('body', []):
            assert part['type'] in ('markdown', 'textarea', 'input')
            assert part['type'] == 'markdown' or part['id']
    assert 'mmcyclemlp doctor' in (forms / 'bug.yml').read_text()
    assert (root / 'tools' / 'doctor.py').exists()
