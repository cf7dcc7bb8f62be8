"""How a run begins."""

# What yapf keeps is broken off, as by a process that is still writing it,
# and whole again after `argv[2]` seconds.
BREAK_OFF = '''
import os, pathlib, sys, threading
os.environ['XDG_CACHE_HOME'] = sys.argv[1]
import yapf
from mmcyclemlp.engine import command, launch
[cache] = pathlib.Path(sys.argv[1]).rglob('Grammar-*')
cache.write_bytes(b'')
threading.Timer(float(sys.argv[2]), cache.unlink).start()
for name in [name for name in sys.modules if name.startswith('yapf')]:
    del sys.modules[name]
'''


def test_waits_for_who_writes_the_cache_of_yapf(run_python, tmp_path):
    done = run_python('-c', BREAK_OFF + '''
cfg = launch.read_config('retinanet/retinanet_cyclemlp-b1_fpn_1x_coco')
print(cfg.pretty_text)
''', tmp_path, .5)
    assert "type='CycleNet'" in done.stdout


def test_names_a_cache_of_yapf_that_stays_broken(run_python, tmp_path):
    done = run_python('-c', BREAK_OFF + '''
command.run(lambda: launch._import_yapf(patience=.2))
''', tmp_path, 1, expect=1)
    assert done.stderr.splitlines()[-1].startswith(
        'error: yapf cannot read its own cache')
