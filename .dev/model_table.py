"""Write the tables of models into the READMEs, or check them.

    python .dev/model_table.py [--check]

Parameters and multiply-adds are counted from the configs. Accuracies and
their sources come from the metafiles that model-index.yml names.
"""

import argparse
import logging
import sys
from pathlib import Path

import yaml
from mmengine.config import Config

from mmcyclemlp.apis.complexity import SIZES, count
from mmcyclemlp.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
BEGIN = '<!-- models: written by .dev/model_table.py -->'
END = '<!-- models: end -->'
METHOD = (
    '`.dev/model_table.py` counts these figures from the configs. One GMAC is '
    "10⁹ multiply-adds of convolutions and matrix products by the paper's "
    'formulas. Norms, activations and resizing are not counted.')
NOTES = dict(
    roi_head='For a two-stage detector, 1000 proposals go through the box '
    'head and 100 through the mask head.',
    auxiliary_head='An auxiliary head counts in the parameters and not in '
    'the GMACs.')
NO_ACCURACY = (
    'Accuracies that are missing here: we have not measured them, and could '
    'not check a published one at its source.')


class Sources:
    """The sources of figures, numbered in the order of their citation."""

    def __init__(self):
        self.texts = []

    def cite(self, value, text):
        if text not in self.texts:
            self.texts.append(text)
        return f'{value} [{self.texts.index(text) + 1}]'

    def lines(self):
        return [f'[{i}] {text}.' for i, text in enumerate(self.texts, 1)]


def read_models(root):
    """Read the metafiles and count their models.

    Args:
        root (Path): Folder of model-index.yml.

    Returns:
        dict[Path, list[dict]]: Models of each folder, as in the metafile,
        with ``cfg``, ``parameters`` and ``macs``.

    Raises:
        UserError: A config is missing, or a figure has no source.
    """
    folders = {}
    for name in _read_yaml(root / 'model-index.yml')['Import']:
        models = _read_yaml(root / name)['Models']
        for model in models:
            path = root / model['Config']
            if not path.is_file():
                raise UserError(f'{name}: there is no config {path}')
            for result in model.get('Results', []):
                if not str(result.get('Source')).startswith(
                        ('quoted from ', 'measured on ')):
                    raise UserError(
                        f"{name}: a result of {model['Name']} needs a Source "
                        "that starts with 'quoted from' or 'measured on'")
            model['cfg'] = Config.fromfile(
                path, import_custom_modules=False)
            model['parameters'], model['macs'] = count(
                model['cfg']).total()
        folders[(root / name).parent] = models
    return folders


def _read_yaml(path):
    if not path.is_file():
        raise UserError(f'there is no {path}')
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def folder_table(models):
    """Return the table of the models of a folder, as Markdown."""
    metrics = list(dict.fromkeys(
        metric for model in models for result in model.get('Results', [])
        for metric in result['Metrics']))
    has_weights = any('Weights' in model for model in models)
    cfg = models[0]['cfg']
    rows = [['config', 'parameters (M), counted',
             f'GMACs at {_size(cfg)}, counted', *metrics]]
    rows[0] += ['weights'] * has_weights
    sources = Sources()
    for model in models:
        name = Path(model['Config']).name
        cells = [', '.join(
            sources.cite(result['Metrics'][metric], result['Source'])
            for result in model.get('Results', [])
            if metric in result['Metrics']) for metric in metrics]
        rows.append([f'[{name[:-3]}]({name})', _mega(model), _giga(model),
                     *cells])
        if has_weights:
            rows[-1].append(f"[official]({model['Weights']})"
                            if 'Weights' in model else '')
    notes = [METHOD, *_notes(cfg), *sources.lines()]
    if not metrics or not all(cell for row in rows for cell in row):
        notes.append(NO_ACCURACY)
    return _markdown(rows, notes)


def overview(folders):
    """Return a table of all sizes of the backbone, as Markdown."""
    columns, top, notes, sources = {}, {}, [], Sources()
    for folder, models in folders.items():
        cfg = models[0]['cfg']
        title = (f"[{models[0]['In Collection']}](configs/{folder.name}/), "
                 + _size(cfg))
        cells = columns.setdefault(title, {})
        for model in models:
            arch = model['cfg'].model.backbone.arch
            # Schedules of one model cost the same.
            cells.setdefault(arch, f'{_mega(model)} M, {_giga(model)} G')
            if cfg.default_scope == 'mmpretrain':
                result = model['Results'][0]
                top[arch] = sources.cite(
                    result['Metrics']['Top 1 Accuracy'], result['Source'])
        notes += _notes(cfg)
    rows = [['`arch`', *(f'{title}, counted' for title in columns),
             'ImageNet top-1']]
    rows += [[arch, *(cells.get(arch, '') for cells in columns.values()),
              top[arch]] for arch in top]
    return _markdown(rows, [METHOD, *notes, *sources.lines()])


def _notes(cfg):
    return [text for key, text in NOTES.items() if key in cfg.model]


def _size(cfg):
    height, width = SIZES[cfg.default_scope]
    return f'{width}x{height}'


def _mega(model):
    return f"{model['parameters'] / 1e6:.2f}"


def _giga(model):
    digits = 2 if model['macs'] < 20e9 else 1
    return f"{model['macs'] / 1e9:.{digits}f}"


def _markdown(rows, notes):
    rows.insert(1, ['---'] * len(rows[0]))
    return '\n'.join([f'| {" | ".join(row)} |' for row in rows]
                     + ['', *notes])


def replace_between_markers(path, table):
    """Return the text of a README with a new table.

    Raises:
        UserError: The file lacks the markers.
    """
    if not path.is_file():
        raise UserError(f'there is no {path}')
    text = path.read_text(encoding='utf-8')
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError(f'{path} has no lines {BEGIN} and {END}, between '
                        'which the table would go')
    return f'{head}{BEGIN}\n\n{table}\n\n{END}{tail}'


def main():
    parser = argparse.ArgumentParser(
        description='Write the tables of models into the READMEs.')
    parser.add_argument(
        '--check', action='store_true',
        help='write nothing; fail if a table is not up to date')
    parser.add_argument(
        '--root', type=Path, default=ROOT, metavar='DIR',
        help='folder of model-index.yml (default: the project)')
    args = parser.parse_args()
    logging.getLogger('mmcyclemlp').setLevel(logging.WARNING)
    folders = read_models(args.root)
    tables = {folder / 'README.md': folder_table(models)
              for folder, models in folders.items()}
    tables[args.root / 'README.md'] = overview(folders)
    texts = {path: replace_between_markers(path, table)
             for path, table in tables.items()}
    stale = [path for path, text in texts.items()
             if path.read_text(encoding='utf-8') != text]
    if args.check and stale:
        raise UserError(
            f"{', '.join(map(str, stale))}: not up to date; run python "
            '.dev/model_table.py')
    for path in stale:
        path.write_text(texts[path], encoding='utf-8')
        print(f'wrote {path}')


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
