"""Whatever is drawn gives the right answer or one clear error.

2,000 cases here; 20,000 by ``pytest --soak -m soak -k fuzz``.
"""

import os
import signal

import pytest
from helpers import fuzz

PARTS = 4
# Of each kind, in CI and at full length.
NUMBERS = {'network': (400, 4_000), 'image': (400, 4_000),
           'model': (80, 800), 'damage': (1_200, 12_000)}


@pytest.mark.soak
@pytest.mark.parametrize('part', range(PARTS))
@pytest.mark.parametrize('kind', NUMBERS)
def test_drawn_cases(kind, part, rounds, record_property):
    number = rounds(*NUMBERS[kind])
    counts, wrong = fuzz.run(kind, range(part, number, PARTS))
    for word, count in counts.items():
        record_property(f'{kind}: {word}', count)
    print(f'{kind}, part {part}: {counts}')
    assert not wrong, '\n'.join([f'{len(wrong)} wrong', *wrong[:10]])
    assert sum(counts.values()) == number // PARTS
    assert counts[fuzz.RIGHT]
    assert fuzz.REFUSED in counts or kind == 'model'


def test_a_wrong_case_is_seen(monkeypatch):
    # One that crashes, and one that is wrong.
    def ends(seed):
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            raise fuzz.WrongError('this')
        return fuzz.RIGHT

    monkeypatch.setitem(fuzz.CASES, 'image', ends)
    counts, wrong = fuzz.run('image', range(4))
    assert counts == {fuzz.RIGHT: 2, 'WRONG': 2}
    assert 'died of signal 9' in wrong[0] and 'image_case(1)' in wrong[0]
    assert 'WrongError: this' in wrong[1]
