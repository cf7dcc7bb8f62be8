"""The formula of CycleFC in docs/how_it_works.md is right."""

import re


def test_snippet_of_the_page(root):
    page = (root / 'docs' / 'how_it_works.md').read_text()
    snippet, = re.findall(r'```python\n(.*?)```', page, flags=re.DOTALL)
    exec(snippet, {})
