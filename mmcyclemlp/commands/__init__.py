"""Commands, one a file: ``python -m mmcyclemlp NAME``.

Each module has ``main(argv=None)``. The first line of its docstring is the
summary that ``python -m mmcyclemlp --help`` lists.
"""
