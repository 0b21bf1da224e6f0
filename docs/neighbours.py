"""Writes the tables of docs/claims.md that compare CORSD with its neighbours, from the committed rows of the leaderboard.

python docs/neighbours.py             # after rows were added to the leaderboard
python docs/neighbours.py --check     # exit status 1 if a table is not what the rows give
"""

import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from kdbench.cli.main import main

DOCS = Path(__file__).parent
CLAIMS = DOCS / "claims.md"
SWEEP = DOCS.parent / "gin" / "sweep" / "corsd_neighbours.gin"
TABLES = {"cifar100": "### cifar100 · resnet8 · recipe smoke ", "digits": "### digits · resnet8 · recipe quick "}
"""Headings in the leaderboard."""
BEGIN, END = "<!-- table of {}: python docs/neighbours.py -->\n", "<!-- end of the table -->\n"


def filled(text: str) -> str:
    """The document with the tables that its command gives of the committed rows, of the sweep's methods alone.

    Args:
        text: of the document.
    """
    page = written(command(text))
    for name, heading in TABLES.items():
        before, begin, rest = text.partition(BEGIN.format(name))
        _, _, after = rest.partition(END)
        text = f"{before}{begin}\n{table(page, heading)}\n{END}{after}"
    return text


def command(text: str) -> list[str]:
    """The words of the section's command, without the program."""
    (line,) = re.findall(r"^    kdbench (leaderboard baseline=corsd .*)$", text, flags=re.MULTILINE)
    return shlex.split(line)


def written(words: list[str]) -> str:
    """The leaderboard that these words make of the committed rows."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        shutil.copy(DOCS.parent / "leaderboard" / "results.csv", out)
        if main([*words, "--runs", str(out / "none"), "--out", str(out)]):
            raise SystemExit("the leaderboard of the committed rows was not written")
        return (out / "README.md").read_text(encoding="utf-8")


def table(page: str, heading: str) -> str:
    """The rows of the sweep in the table of a leaderboard, with its head."""
    lines = page.partition(heading)[2].partition("\n#")[0].splitlines()
    head, *rows = (line for line in lines if line.startswith("|"))
    methods = set(re.findall(r"'(\w+)'", SWEEP.read_text(encoding="utf-8")))
    chosen = [row for row in rows[1:] if row.split("|")[2].split()[0] in methods]
    return "\n".join([head, rows[0], *chosen]) + "\n"


if __name__ == "__main__":
    now = CLAIMS.read_text(encoding="utf-8")
    wanted = filled(now)
    if sys.argv[1:] != ["--check"]:
        CLAIMS.write_text(wanted, encoding="utf-8")
    elif now != wanted:
        sys.exit(f"{CLAIMS} does not follow from the committed rows; run: python docs/neighbours.py")
