"""Errors are one line, also from a worker of a data loader."""

import pytest
import torch
from torch.utils.data import DataLoader

from mmcyclemlp.errors import CheckpointError, UserError, describe, first_line


class Failing(torch.utils.data.Dataset):

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError('photo.jpg: UserError: it is damaged')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_worker_adds_no_traceback(workers):
    with pytest.raises(UserError) as caught:
        list(DataLoader(Failing(), num_workers=workers))
    assert str(caught.value).endswith('it is damaged')
    assert '\n' not in str(caught.value)


def test_a_message_that_quotes_another_error_is_whole():
    assert str(UserError('a UserError: b')) == 'a UserError: b'


def test_keys_of_a_file_are_escaped():
    assert str(CheckpointError('key \x1b[31m\n')) == r'key \x1b[31m\n'


def test_describe_says_where():
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert describe(caught.value).startswith(
        'ZeroDivisionError: division by zero (')
    assert 'test_errors.py, line ' in describe(caught.value)


def test_first_line():
    assert first_line(ValueError('one\ntwo')) == 'one'
