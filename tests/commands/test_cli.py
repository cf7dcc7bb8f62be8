"""How a command ends when a user has made a mistake."""

import errno

import pytest

pytest.importorskip('mmengine')

from mmcyclemlp.commands import cli as command
from mmcyclemlp.errors import BackendUnavailable, CheckpointError, UserError


@pytest.mark.parametrize('error', [
    UserError('no such file'), CheckpointError('no weights'),
    BackendUnavailable("backend='triton' cannot run here"),
    OSError(errno.ENOSPC, 'No space left on device')], ids=repr)
def test_a_mistake_ends_in_one_line(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code.startswith(f'error: {error}')
    assert '\n' not in end.value.code


@pytest.mark.parametrize('error', [
    RuntimeError('a fault of ours'), OSError(errno.EACCES, 'denied')],
    ids=repr)
def test_other_errors_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)) as raised:
        command.run(main)
    assert raised.value is error
