"""What docs/how_it_works.md says of CycleFC is so."""

import re


def test_snippet_of_the_page(root):
    page = (root / 'docs' / 'how_it_works.md').read_text()
    snippet, = re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)
    exec(snippet, {})
