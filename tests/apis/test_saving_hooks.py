"""Names of saved files are unique, and no longer than necessary."""

from types import SimpleNamespace

import pytest
from mmengine.evaluator import Evaluator

from mmcyclemlp.apis.saving_hooks import DumpHook, name_outputs
from mmcyclemlp.errors import UserError


@pytest.mark.parametrize('paths, names', [
    (['/d/val/a.jpg', '/d/val/b.jpg'], ['a', 'b']),
    # As for Cityscapes, whose base names differ.
    (['/d/bonn/bonn_1.png', '/d/ulm/ulm_1.png'], ['bonn_1', 'ulm_1']),
    (['/d/cam1/0.jpg', '/d/cam2/0.jpg'], ['cam1/0', 'cam2/0']),
    (['/d/0.jpg', '/d/cam2/0.jpg'], ['0', 'cam2/0']),
    (['/d/a/cam/0.jpg', '/d/b/cam/0.jpg', '/d/x.jpg'],
     ['a/cam/0', 'b/cam/0', 'x']),
    (['/d/0.jpg', '/d/0.png'], ['0.jpg', '0.png']),
    (['/d/a.b.jpg', '/d/a.c.jpg'], ['a.b', 'a.c']),
    (['d/0.jpg', './e/0.jpg', 'd/../f/0.jpg'], ['d/0', 'e/0', 'f/0']),
    (['/d/0.jpg'], ['0']),
    ([], []),
])
def test_names(paths, names):
    assert list(name_outputs(paths).values()) == names
    # An image that is given twice has one name.
    assert name_outputs(paths * 2) == name_outputs(paths)


def test_evaluator_that_ignores_added_metrics():
    class OneForEachDataSet(Evaluator):

        def evaluate(self, size):
            return {}

    runner = SimpleNamespace(test_evaluator=OneForEachDataSet([]))
    with pytest.raises(UserError, match='--out: OneForEachDataSet ignores'):
        DumpHook('out.pkl', 'mmpretrain').before_test(runner)
    runner.test_evaluator = Evaluator([])
    DumpHook('out.pkl', 'mmpretrain').before_test(runner)
    assert len(runner.test_evaluator.metrics) == 1
