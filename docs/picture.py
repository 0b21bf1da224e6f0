"""Makes docs/picture.svg: a terminal with the demo's table and a reproduced run, in a file that loads nothing from the network.

python docs/picture.py [--runs RUNS]     # RUNS has the runs of the demo, or gets them: a few minutes on two CPU cores
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COMMANDS = (["run"], ["reproduce", "ce-digits-resnet8-s0"])
COLUMNS = 92
PICTURE = Path(__file__).with_name("picture.svg")

# Rich's own form without its @font-face, which loads a font from the network.
FORM = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" \
aria-label="A terminal: kdbench run prints a table of six methods; kdbench reproduce finds a run bit-identical">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def printed(words: list[str], runs: Path) -> str:
    """Standard output of a command of kdbench."""
    done = subprocess.run(
        [sys.executable, "-m", "kdbench", *words, "--runs", str(runs)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def draw(outputs: list[tuple[list[str], str]]) -> str:
    """An SVG of a terminal in which commands were typed and have printed these outputs.

    Notes under a table, their marks and the folder of a run are left out: they depend on the machine.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, markup=False)
    for words, output in outputs:
        console.print(Text("$ ", style="bold green") + Text("kdbench " + " ".join(words), style="bold"))
        for line in output.splitlines():
            if len(line) <= COLUMNS and not line.startswith("The run is in"):
                console.print(line.replace(" ¶", "  "))
        console.print()
    return console.export_svg(
        title="kdbench", theme=MONOKAI, code_format=FORM, unique_id="kdbench", font_aspect_ratio=0.6
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, metavar="RUNS", help="a folder of runs (default: a temporary one)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = asked.runs or Path(folder)
        PICTURE.write_text(draw([(words, printed(words, runs)) for words in COMMANDS]), encoding="utf-8")


if __name__ == "__main__":
    main()
