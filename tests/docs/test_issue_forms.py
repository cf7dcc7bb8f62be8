"""The issue forms have the fields that GitHub knows."""

import yaml


def test_forms(root):
    forms = root / '.github' / 'ISSUE_TEMPLATE'
    for path in forms.glob('*.yml'):
        form = yaml.safe_load(path.read_text())
        for part in form.get('body', []):
            assert part['type'] in ('markdown', 'textarea', 'input')
            assert part['type'] == 'markdown' or part['id']
    assert 'python -m mmcyclemlp doctor' in (forms / 'bug.yml').read_text()
