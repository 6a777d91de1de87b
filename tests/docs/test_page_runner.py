"""A page that cannot be followed says where; blocks that are not run say why."""

import pytest
from pages import ROOT, blocks, run_blocks

PAGE = """# A page

```sh
WORD=kept
echo "first $WORD"
```

```text
what one should see
```

```python
print("second", 6 * 7)
```

```sh
# Not run by the tests: it would take a week.
false
```

```sh
# Needs no_such_package: pip install it
false
```
"""
BROKEN = """
```sh
echo "$WORD"
ls no-such-file
echo never
```
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_run_in_order_in_one_shell(page, tmp_path):
    found = blocks(page)
    assert [(block.line, block.language, block.why_not) for block in found] == [
        (3, "sh", ""), (12, "python", ""), (16, "sh", "it would take a week."),
        (21, "sh", "no_such_package is not installed"),
    ]  # fmt: skip
    printed = run_blocks(page, tmp_path, found[:2])
    assert printed.splitlines() == ["=== page.md:3", "first kept", "=== page.md:12", "second 42"]


def test_the_command_that_fails_is_named_and_nothing_runs_after_it(page, tmp_path):
    page.write_text(PAGE + BROKEN)
    run = [block for block in blocks(page) if not block.why_not]
    with pytest.raises(AssertionError, match=r"FAILED \(exit code 2\): ls no-such-file") as failure:
        run_blocks(page, tmp_path, run)
    assert "kept\nls: " in str(failure.value) and "never" not in str(failure.value).splitlines()


def test_a_failure_inside_of_a_pipe_is_one(page, tmp_path):
    page.write_text(BROKEN.replace("$WORD", "word").replace("no-such-file", "no-such-file | cat"))
    with pytest.raises(AssertionError, match=r"exit code 2"):
        run_blocks(page, tmp_path, blocks(page))


def test_python_that_raises_fails_the_page(page, tmp_path):
    page.write_text(PAGE.replace("6 * 7", "6 / 0"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_blocks(page, tmp_path, blocks(page)[:2])


def test_hardly_a_block_of_the_pages_of_users_is_left_out():
    pages = ("masks-from-words", "sweep-rewards", "moondream-weights", "scale-rollouts")
    found = [block for name in pages for block in blocks(ROOT / "docs" / f"{name}.md")]
    left_out = [block for block in found if block.text.startswith("# Not run")]
    assert len(left_out) <= 6 < 20 <= len(found)
