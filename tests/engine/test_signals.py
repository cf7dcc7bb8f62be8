"""Handle signals in the main process only.

Each script signals its process group, so it runs in its own.
"""

import os
import signal
import subprocess
import sys

import pytest

START = """
import concurrent.futures, ctypes, functools, multiprocessing, os, signal
import subprocess, sys, threading, time

if __name__ == '__main__':
    from torch.utils.data import DataLoader
    from mmcyclemlp.engine.signals import (
        set_handler, restore_handlers, shield_workers)

BOTH = signal.SIGTERM, signal.SIGINT
DEFAULT = [signal.SIG_DFL, signal.default_int_handler]
SLEEP = [sys.executable, '-S', '-c', 'import time; time.sleep(1000)']

def handlers(*_):
    return ([signal.getsignal(number) for number in BOTH] == DEFAULT and not
            signal.pthread_sigmask(signal.SIG_BLOCK, []).intersection(BOTH))

def ignore(number, frame):
    pass

# What people do, by the name of the test.

def pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert all(pool.map(handlers, range(4)))
    pool.join()

fork = functools.partial(pool, 'fork')
spawn = functools.partial(pool, 'spawn')
forkserver = functools.partial(pool, 'forkserver')

def executor():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert all(pool.map(handlers, range(4)))

def outer(_):
    multiprocessing.current_process()._config['daemon'] = False
    fork()
    return True

def nested():
    with multiprocessing.get_context('fork').Pool(2) as pool:
        assert all(pool.map(outer, range(2)))
    pool.join()

def at_once():
    for _ in range(100):
        process = multiprocessing.get_context('fork').Process(
            target=time.sleep, args=(1000,))
        process.start()
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM

def bare_fork():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b'1' if handlers() else b'0')
        time.sleep(1000)
    assert os.read(reader, 1) == b'1'
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM

def threads():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(bare_fork), pool.submit(fork)]:
            one.result()

def program(**options):
    for number in BOTH:
        process = subprocess.Popen(SLEEP, stderr=subprocess.DEVNULL, **options)
        process.send_signal(number)
        # Without a handler of its own yet, or with Python's.
        assert process.wait() in (-number, 1)

def program_after_a_call():
    program(preexec_fn=functools.partial(int, 0))

def shell():
    done = subprocess.run('trap "exit 3" INT; kill -INT $$; sleep 1000',
                          shell=True)
    assert done.returncode == 3
    assert os.system('kill -TERM $$; sleep 1000') == signal.SIGTERM

CHILDREN = [fork, spawn, forkserver, executor, nested, at_once, bare_fork,
            threads, program, program_after_a_call, shell]

def children():
    for one in CHILDREN:
        print(one, flush=True)  # which one hangs
        one()
"""


@pytest.fixture
def run_script(root, tmp_path):
    """Run a script in its own session; return what it prints."""

    def run(text):
        path = tmp_path / 'script.py'
        path.write_text(START + text)
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(path)], cwd=root,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
            env=dict(os.environ, PYTHONPATH=str(root)))
        try:
            log, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            log, _ = process.communicate()
        assert process.returncode == 0, log
        return log

    return run


def test_children_of_the_main_process_end(run_script):
    run_script("""
if __name__ == '__main__':
    multiprocessing.set_start_method('fork')
    set_handler(ignore)
    children()
    # And its handler is still set.
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is ignore
    restore_handlers()
    assert handlers()
""")


LOADER = """
class Data:
    def __init__(self, length, work, *args):
        self.length = length
        self.work = functools.partial(work, *args)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        multiprocessing.current_process()._config['daemon'] = False
        self.work()
        return index

def load(length, work, *args, **options):
    loader = DataLoader(Data(length, work, *args), num_workers=2, **options)
    shield_workers(loader)
    return loader
"""


def test_children_of_a_worker_end(run_script):
    run_script(LOADER + """
if __name__ == '__main__':
    multiprocessing.set_start_method('fork')
    set_handler(ignore)
    assert [int(x) for x in load(2, children)] == [0, 1]
""")


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_survive_signals_to_the_group_at_any_time(method, run_script):
    run_script(LOADER + f"""
def signal_group():
    while not done:
        for number in BOTH:
            os.killpg(0, number)
            time.sleep(.001)

if __name__ == '__main__':
    set_handler(ignore)
    done = False
    thread = threading.Thread(target=signal_group)
    thread.start()
    try:
        for _ in range({dict(fork=20, spawn=1)[method]}):
            loader = load(
                4, time.sleep, .01, multiprocessing_context='{method}')
            assert [int(x) for x in loader] == [0, 1, 2, 3]
    finally:
        done = True
        thread.join()
""")


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_stuck_workers_end_with_their_process(method, run_script):
    log = run_script(LOADER + f"""
def never():
    # In C, and it keeps the lock of the interpreter.
    ctypes.PyDLL(None).sleep(1000)

if __name__ == '__main__':
    batches = iter(load(2, never, multiprocessing_context='{method}'))
    print('exit')
""")
    assert log.split() == ['exit']


def test_keeps_handlers_of_others(run_script):
    run_script("""
def theirs(number, frame):
    pass

if __name__ == '__main__':
    signal.signal(signal.SIGTERM, theirs)
    set_handler(ignore)
    set_handler(print)
    if os.fork() == 0:
        # As before.
        os._exit(signal.getsignal(signal.SIGTERM) is not theirs)
    assert os.wait()[1] == 0
    signal.signal(signal.SIGINT, theirs)
    if os.fork() == 0:
        # Set since.
        os._exit(signal.getsignal(signal.SIGINT) is not theirs)
    assert os.wait()[1] == 0
    restore_handlers()
    assert signal.getsignal(signal.SIGTERM) is theirs
    assert signal.getsignal(signal.SIGINT) is theirs
    mask = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, mask)
    if os.fork() == 0:
        os._exit(signal.pthread_sigmask(signal.SIG_BLOCK, []) != mask)
    assert os.wait()[1] == 0
""")
