"""Checks spelling and words. `make lint` runs it with the Python of target/lint.

codespell reads every file of the repository. proselint reads the Markdown. phrases.txt lists expressions that only
this project's authors understand: Markdown, SQL, the library's strings and the page may contain none of them.
"""

import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(sys.executable).parent
TEXT = {"", ".control", ".css", ".csv", ".html", ".js", ".json", ".md", ".out", ".py", ".rs", ".sh", ".sql", ".toml", ".txt", ".yaml", ".yml"}
# Made by programs, or by others.
FOREIGN = {"Cargo.lock", "requirements.txt"}


def files():
    """Every text file of the repository."""
    todo = [ROOT]
    while todo:
        for path in sorted(todo.pop().iterdir()):
            if path.is_symlink() or path.name in {"target", ".git"} | FOREIGN:
                continue
            if path.is_dir():
                todo.append(path)
            elif path.suffix in TEXT:
                yield path


def prose(text):
    """Markdown without code and addresses. Lines and columns stay where they are."""

    def blank(match, character=" "):
        return re.sub(r"[^\n]", character, match[0])

    text = re.sub(r"^( *)(```|~~~).*?^\1\2[^\n]*$", blank, text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->", blank, text, flags=re.S)
    # Code within a sentence stands for a word. Two of them side by side are two words, and no repetition.
    letters = itertools.cycle("xyz")
    text = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda match: blank(match, next(letters)), text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", blank, text)
    # A heading and the first word below it are no repetition.
    return re.sub(r"^(#+ [^\n]*)$", r"\1.", text, flags=re.M)


def spelling(paths):
    # Whole lines that are right as they are: foreign words, and a key that a test spells wrong.
    lines = HERE / "exceptions.txt"
    found = subprocess.run([BIN / "codespell", "--quiet-level=3", "--exclude-file", lines, *paths], cwd=ROOT)
    return found.returncode == 0


def style(paths):
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for path in paths:
            copy = pathlib.Path(folder, path.relative_to(ROOT))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(prose(path.read_text()))
            copies.append(copy)
        command = [BIN / "proselint", "check", "--config", HERE / "proselint.json", *copies]
        # Nobody's own settings count. proselint.json switches off what is wrong here: typography wants curly quotes,
        # dates_times.dates takes "from 02:00 on" for a range, and misc.composition takes "did not succeed" for "failed",
        # which leaves out runs that were cancelled.
        env = os.environ | {"XDG_CONFIG_HOME": folder}
        found = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sys.stdout.write(found.stdout.replace(folder + "/", ""))
    return found.returncode == 0


def phrases(paths):
    lines = [line for line in (HERE / "phrases.txt").read_text().splitlines() if line and line[0] != "#"]
    known = re.compile("|".join(line.replace(" ", r"\s+") for line in lines), re.I)
    good = True
    for path in paths:
        text = path.read_text()
        if path.suffix != ".md":
            # Comments are for contributors.
            text = re.sub(r"^\s*(//|--).*$", "", text, flags=re.M)
        for match in known.finditer(text):
            good = False
            line = text.count("\n", 0, match.start()) + 1
            print(f'{path.relative_to(ROOT)}:{line}: say "{" ".join(match[0].split())}" in plain words (pg_test/lint/phrases.txt)')
    return good


def main():
    everything = list(files())
    markdown = [path for path in everything if path.suffix == ".md"]
    read = [path for path in everything if path.is_relative_to(ROOT / "src") or path.is_relative_to(ROOT / "sql/install")]
    read += [path for path in everything if path.is_relative_to(ROOT / "pg_test/demo")]
    results = [spelling(everything), style(markdown), phrases(markdown + read)]
    if not all(results):
        sys.exit(1)
    print(f"spelling and words: {len(everything)} files, {len(markdown)} of them Markdown")


main()
