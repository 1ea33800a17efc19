"""List files and functions beyond the house's sizes; fails when one is far beyond.

python tests/size_report.py
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE_LINES, FUNCTION_LINES = 300, 60
FAR = 1.25


def main() -> int:
    """Print the report and give the exit code."""
    rows: list[tuple[float, str]] = []
    for folder in ("mmtool", "data_prep"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            where = path.relative_to(ROOT)
            rows.append((text.count("\n") / FILE_LINES, f"{where}: {text.count(chr(10))} lines"))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    place = f"{where}:{node.lineno} {node.name}: {length} lines"
                    rows.append((length / FUNCTION_LINES, place))
    over = sorted((row for row in rows if row[0] > 1), reverse=True)
    for share, place in over:
        sys.stdout.write(f"{share:5.2f}  {place}\n")
    sys.stdout.write(f"{len(over)} of {len(rows)} files and functions are over their size\n")
    return int(any(share > FAR for share, _ in over))


if __name__ == "__main__":
    sys.exit(main())
