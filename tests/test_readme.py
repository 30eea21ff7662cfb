"""The README is true: its snippets run, each by itself, and print what stands below them."""

from __future__ import annotations

import code
import contextlib
import io
import re
from pathlib import Path

import pytest

import vgrad

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted((README.parent / "demos").glob("*.md"))]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def snippets() -> list[tuple[str, str]]:
    """Every Python block, with the text block that follows it, or nothing."""
    following = [*BLOCKS[1:], ("", "")]
    return [
        (block, after if kind == "text" else "")
        for (language, block), (kind, after) in zip(BLOCKS, following)
        if language == "python"
    ]


def test_it_is_short_and_has_snippets_and_two_commands():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 220
    assert len(snippets()) >= 4
    assert sum(language == "sh" for language, _ in BLOCKS) == 2


def test_what_pages_refer_to_is_there_and_pictures_are_small():
    for page in PAGES:
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        for target in targets:
            if target.startswith("https://"):
                continue
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            if target.endswith((".png", ".svg")):
                assert 1000 < (page.parent / target).stat().st_size < 150_000, target
    assert README.read_text(encoding="utf-8").count("demos/pictures/") >= 3


def test_the_demos_that_pages_name_are_there_and_have_those_options():
    for page in PAGES:
        named = re.findall(
            r"`(?:[./\w]+python )?(?:demos/)?(\w+\.py)([^`]*)`", page.read_text(encoding="utf-8")
        )
        for name, options in named:
            demo = README.parent / "demos" / name
            if not demo.exists():  # a file of the package
                assert list((README.parent / "vgrad").rglob(name)), name
                continue
            source = "".join(
                path.read_text(encoding="utf-8") for path in (demo, demo.with_name("terminal.py"))
            )
            found = re.findall(r"--[a-z-]+", options)
            assert all(f'"{option}"' in source for option in found), (name, options)


def test_the_names_that_it_lists_are_there():
    table = README.read_text(encoding="utf-8").split("## Functions and calls")[1].split("\n## ")[0]
    homes = [vgrad, vgrad.Program, vgrad.Graph, vgrad.nn, vgrad.optim, vgrad.linalg]
    rows = re.findall(r"^\|[^|]*\|(.*)\|$", table, re.MULTILINE)[1:]
    names = {x for row in rows for part in re.findall(r"`([^`]*)`", row) for x in names_of(part)}
    assert len(names) > 100
    unknown = {name for name in names if not any(hasattr(home, name) for home in homes)}
    assert unknown == {"executor=", "if"}  # an option, and Python's


def names_of(text: str) -> list[str]:
    """As "exp" and "log" of "exp log", and "value_and_grad" of "program.value_and_grad(theta)"."""
    words = re.sub(r"\([^)]*\)|^with |[@:]", "", text).split()
    return [word.split(".")[-1] for word in words if word not in ("W", "x")]


def test_every_function_of_numbers_is_in_its_list():
    table = README.read_text(encoding="utf-8").split("## Functions and calls")[1].split("\n## ")[0]
    listed = set(re.findall(r"\w+", table))
    functions = {name for name in vgrad.__all__ if name.islower()}
    operators = {"logical_and", "logical_or", "logical_not"}  # & | ~
    assert functions - listed == {*operators, "datasets"}


def test_the_function_on_top_is_that_of_the_demo():
    demo = (README.parent / "demos" / "branches.py").read_text(encoding="utf-8")
    shown = re.search(r"^def thrown.*?\n\n", snippets()[0][0], re.MULTILINE | re.DOTALL)
    assert shown is not None and shown[0] in demo


@pytest.mark.parametrize("k", range(len(snippets())))
def test_a_snippet_runs_by_itself_in_a_script_and_at_the_prompt(k, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block, printed = snippets()[k]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert out.getvalue() == printed
    prompt, out, errors = code.InteractiveConsole(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        for line in [*block.splitlines(), ""]:
            prompt.push(line)
    assert (out.getvalue(), errors.getvalue()) == (printed, "")
