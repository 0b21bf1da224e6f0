"""What other programs write may be in any encoding."""

import ast
from pathlib import Path

import kdbench

STARTING = ("run", "Popen", "check_output", "call", "check_call")


def test_the_output_of_other_programs_is_nowhere_decoded_strictly():
    strict = []
    for file in sorted(Path(kdbench.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTING:
                given = {keyword.arg for keyword in node.keywords}
                if given & {"text", "encoding", "universal_newlines"} and "errors" not in given:
                    strict.append(f"{file.name}:{node.lineno}")
    assert strict == []
