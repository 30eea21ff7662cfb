"""The README is true: its snippets run and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, str | None]]:
    """Every Python block, with the text block that follows it, if one does."""
    following = [*BLOCKS[1:], ("", "")]
    return [
        (code, after if kind == "text" else None)
        for (language, code), (kind, after) in zip(BLOCKS, following)
        if language == "python"
    ]


def test_there_are_snippets_and_two_commands():
    assert len(snippets()) >= 3
    assert sum(language == "sh" for language, _ in BLOCKS) == 2


def test_the_pictures_are_there_and_small():
    paths = re.findall(r"^!\[.*?\]\((.*?)\)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(paths) >= 3
    for path in paths:
        assert 1000 < (README.parent / path).stat().st_size < 150_000, path


def test_the_demos_it_names_are_there_and_have_those_options():
    for name, options in re.findall(r"`demos/(\w+\.py)([^`]*)`", README.read_text()):
        source = (README.parent / "demos" / name).read_text()
        source += (README.parent / "demos" / "terminal.py").read_text()
        assert all(f'"{option}"' in source for option in re.findall(r"--[a-z-]+", options)), name


def test_the_function_on_top_is_that_of_the_demo():
    demo = (README.parent / "demos" / "branches.py").read_text()
    shown = README.read_text().split("```py\n")[1].split("```")[0]
    assert shown in demo


def test_snippets_run_in_order_and_print_what_the_readme_says(tmp_path, monkeypatch):
    """In one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code, printed in snippets():
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.md", "exec"), namespace)
        assert out.getvalue() == (printed or ""), code
