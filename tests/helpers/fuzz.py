"""Run a check on examples that hypothesis draws and shrinks."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Mostly small numbers, as most mistakes show there.
SIZES = st.one_of(st.integers(1, 12), st.integers(1, 40), st.integers(1, 200))


def run(check, strategy, number):
    """Call ``check(example)`` for a number of examples.

    The examples are the same in each run. An example that fails is shrunk and
    shown with the error.
    """
    settings(max_examples=number, deadline=None, derandomize=True,
             database=None, suppress_health_check=list(HealthCheck))(
        given(strategy)(check))()
