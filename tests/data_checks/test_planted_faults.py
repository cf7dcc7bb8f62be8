"""Every fault of data that mm would stumble over, drop or learn, is found."""

import shutil

import pytest
from helpers import planted_faults as planted
from helpers.spoiled_data import on_copy

from mmcyclemlp.data_checks import DataCheck, Look, check_data
from mmcyclemlp.errors import UserError

SHAPES = ('disc', 'square', 'triangle', 'star', 'ring')
CLASSES = dict(mask_rcnn=SHAPES, upernet=('wall', 'floor', *SHAPES))


def look_at(data, number=None):
    return list(DataCheck(data.cfg, ('train', 'val'), Look(number)).run())


@pytest.fixture
def data(request, root, drawn_data, tmp_path):
    """A copy of the drawn data for the model that the test is for."""
    model = request.node.callspec.params['model']
    folder = shutil.copytree(drawn_data, tmp_path / 'data')
    return on_copy(root, folder, model, CLASSES[model])


@pytest.mark.parametrize('model', CLASSES)
def test_nothing_is_wrong(model, data):
    assert [one for one in look_at(data) if one.error] == []


@pytest.mark.parametrize('model, name', planted.FAULTS)
def test_fault(model, name, data):
    fault = planted.fault(model, name)
    where = fault.plant(data)
    findings = look_at(data)
    found = [one for one in findings
             if (one.kind, one.split) == (fault.kind, fault.split)]
    assert len(found) == 1, findings
    assert found[0].error == fault.error
    assert found[0].names
    assert where in ' '.join([found[0].message, *map(str, found[0].names)])
    assert all('\n' not in one.message for one in findings)
    # The check before a run is the same one.
    errors = dict.fromkeys(one.message for one in findings if one.error)
    if errors:
        with pytest.raises(UserError) as caught:
            check_data(data.cfg, ('train', 'val'))
        assert str(caught.value) == '\nerror: '.join(errors)
    else:
        check_data(data.cfg, ('train', 'val'))
