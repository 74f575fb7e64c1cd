"""Count the code: lines of each package, its longest file and function, and test lines per line of code.

    python -m benchmarks.size [--packages annotator,model]

Only lines with code count, not blank lines, comments or docstrings.
"""

import ast
import io
import tokenize
from pathlib import Path

from benchmarks.command import Command
from benchmarks.measure import print_last

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("annotator", "model", "store")
COMMAND = Command(
    __doc__,
    full={"packages": (*PRODUCT, "benchmarks", "docs", "tests")},
    quick={},
    tiny={},
    figures=("tests_per_line",),
    figures_by="packages",
)
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: str) -> int:
    """Count the lines with code."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    held = {n for t in tokens if t.type not in _LAYOUT for n in range(t.start[0], t.end[0] + 1)}
    return len(held - docstring_lines(ast.parse(text)))


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the line numbers of all docstrings."""
    owners = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    first = [owner.body[0] for owner in owners if owner.body and ast.get_docstring(owner) is not None]
    return {line for node in first for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def main() -> None:
    """Count and print."""
    packages = COMMAND.read().packages
    totals: dict[str, int] = {}
    print(f"{'package':12}{'files':>6}{'code':>7}   longest file, longest function")
    for package in packages:
        texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / package).rglob("*.py")}
        sizes = {path: code_lines(text) for path, text in texts.items()}
        functions = [
            ((node.end_lineno or 0) - node.lineno + 1, f"{path.stem}.{node.name}")
            for path, text in texts.items()
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef)
        ]
        longest, most = max(sizes, key=lambda path: sizes[path]), max(functions)
        totals[package] = sum(sizes.values())
        print(f"{package:12}{len(sizes):6}{totals[package]:7}   {longest.name} {sizes[longest]}, {most[1]} {most[0]}")
    product = sum(totals.get(package, 0) for package in PRODUCT)
    print_last({**totals, "tests_per_line": round(totals.get("tests", 0) / product, 2) if product else None})


if __name__ == "__main__":
    main()
