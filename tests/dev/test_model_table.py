"""Tables are up to date, and the command sees where they are not."""

import pytest

BEGIN = '<!-- models: written by .dev/model_table.py -->'
END = '<!-- models: end -->'
FILES = {
    'model-index.yml': 'Import:\n  - configs/one/metafile.yml\n',
    'README.md': f'Above\n{BEGIN}\n{END}\nbelow\n',
    'configs/one/README.md': f'Above\n{BEGIN}\nold\n{END}\nbelow\n',
    'configs/one/b1.py': """
default_scope = 'mmpretrain'
model = dict(backbone=dict(
    type='CycleNet', arch='b1', fork_feat=False, num_classes=1000))
""",
    'configs/one/metafile.yml': """
Models:
  - Name: b1
    In Collection: One
    Config: configs/one/b1.py
    Results:
      - Metrics:
          Top 1 Accuracy: 78.9
        Source: quoted from a page
      - Metrics:
          Top 1 Accuracy: 78.8
          Top 5 Accuracy: 94.1
        Source: measured on a day, a machine, versions
""",
}
COMMAND = '.dev/model_table.py'


@pytest.fixture
def project(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_tables_of_the_project(run_python):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    run_python(COMMAND, '--check')


def test_write_and_check(project, run_python):
    run_python(COMMAND, '--root', project)
    text = (project / 'configs/one/README.md').read_text()
    assert text.startswith('Above\n') and text.endswith('below\n')
    assert 'old' not in text
    assert ('| [b1](b1.py) | 15.16 | 2.12 | 78.9 [1], 78.8 [2] | 94.1 [2] |'
            in text)
    assert '[1] quoted from a page.' in text
    assert '[2] measured on a day, a machine, versions.' in text
    assert '| b1 | 15.16 M, 2.12 G | 78.9 [1] |' in (
        project / 'README.md').read_text()
    run_python(COMMAND, '--check', '--root', project)


@pytest.mark.parametrize('name, old, new, stale', [
    ('configs/one/README.md', '2.12', '2.13', 'configs/one/README.md'),
    ('README.md', '15.16', '15.17', 'README.md'),
    # What is counted changes with the config, what is quoted does not.
    ('configs/one/b1.py', '=1000', '=10', 'configs/one/README.md'),
    ('configs/one/metafile.yml', '94.1', '94.2', 'configs/one/README.md'),
])
def test_stale(name, old, new, stale, project, run_python):
    run_python(COMMAND, '--root', project)
    replace(project / name, old, new)
    before = (project / stale).read_text()
    said = run_python(
        COMMAND, '--check', '--root', project, expect=1).stderr
    assert f'{project / stale}' in said
    assert 'run python .dev/model_table.py' in said
    assert (project / stale).read_text() == before


@pytest.mark.parametrize('name, old, new, message', [
    ('configs/one/metafile.yml', 'Source: quoted', 'Source: known',
     "a result of b1 needs a Source that starts with 'quoted from' or "
     "'measured on'"),
    ('configs/one/metafile.yml', 'one/b1.py', 'one/b2.py',
     'there is no config'),
    ('model-index.yml', 'one', 'two', 'there is no'),
    ('README.md', END, '', 'has no lines'),
])
def test_mistakes(name, old, new, message, project, run_python):
    replace(project / name, old, new)
    done = run_python(COMMAND, '--root', project, expect=1)
    assert message in done.stderr
    # Nothing is written, not even the table that would fit.
    text = (project / 'configs/one/README.md').read_text()
    assert text == FILES['configs/one/README.md']
