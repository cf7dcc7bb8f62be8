"""A detector starts from a pretrained classifier, on drawn images."""

import json

import numpy as np


def test_a_detector_starts_from_the_features(run_python, tmp_path):
    out = tmp_path / 'out'
    done = run_python(
        'demo/transfer.py', '--out', out, '--things', 4000,
        '--classifier-epochs', 1, '--images', 240, '--epochs', 1)
    assert 'the same stage outputs, bit for bit' in done.stdout
    losses = json.loads((out / 'losses.json').read_text())
    assert len(losses['pretrained']) == len(losses['scratch']) == 60
    # At first both only learn that most positions are empty.
    pretrained, scratch = (
        np.mean(losses[name][30:]) for name in ('pretrained', 'scratch'))
    assert pretrained < 0.99 * scratch
