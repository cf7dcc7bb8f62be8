"""Commands in the Markdown files exist and accept their arguments."""

import argparse
import importlib
import re
import shlex

import pytest
from helpers.pages import PAGES, ROOT, name_of

COMMAND = re.compile(
    r'(?:python -m mmcyclemlp |tools/)(?!COMMAND)(\w+)(?:\.py|\.sh)?\b'
    r'((?:[^\n`\\]|\\(?!\n)|\\\n|\n {8}(?=[\[-]))*)')


class ParsedError(Exception):
    """The arguments of a command are parsed. Nothing more is to run."""


@pytest.fixture
def parse(monkeypatch):
    """Parse the arguments of a command with its own parser."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)

    def parse(name, arguments):
        try:
            command = importlib.import_module(f'mmcyclemlp.commands.{name}')
        except ModuleNotFoundError as error:
            if error.name.startswith('mmcyclemlp'):
                raise
            pytest.skip(f'{name} needs {error.name}')
        try:
            command.main(arguments)
        except ParsedError:
            return None
        except SystemExit as done:
            # --help exits with 0.
            return done.code or None
        raise AssertionError(f'{name} parses nothing')

    return parse


def commands_of(text):
    """Yield the name and the arguments of each command in a page.

    Brackets around optional arguments are removed. Of ``a|b`` the first
    alternative is taken.
    """
    for name, rest in COMMAND.findall(text):
        rest = re.split(r' > | # | \| ', rest.replace('\\\n', ' '))[0]
        words = shlex.split(re.sub(r'(?<= )\[|\](?=\s|$)', '', rest))
        words = [word if '=' in word else word.partition('|')[0]
                 for word in words if word != '...']
        if name.startswith('dist_'):
            assert (ROOT / 'tools' / f'{name}.sh').is_file()
            name, words = name[len('dist_'):], words[1:]
        yield name, words


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_commands(page, parse, capsys):
    for name, words in commands_of(page.read_text('utf-8')):
        assert (ROOT / 'mmcyclemlp' / 'commands' / f'{name}.py').is_file()
        if words:
            error = parse(name, words)
            assert error is None, (name, words, capsys.readouterr().err)


@pytest.mark.parametrize('wrong', [
    'train CONFIG --resum3', 'train CONFIG --check never', 'test CONFIG',
    'visualize_features cyclefc --kernel 3'])
def test_wrong_commands_are_found(wrong, parse):
    (name, words), = commands_of(f'    python -m mmcyclemlp {wrong}\n')
    assert parse(name, words)
