"""`kdbench doctor`: one screen, and the exit status."""

from kdbench.cli.main import main


def test_one_screen_of_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdbench.cli.console.PIPE_WIDTH", 80)
    assert main(["doctor", "--runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "runs can start"
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines if not line.startswith("note:"))


def test_what_will_fail_is_status_1_and_a_sentence(tmp_path, capsys):
    assert main(["doctor", "--runs", str(tmp_path), "--data", str(tmp_path / "nowhere")]) == 1
    *_, problem, last = capsys.readouterr().out.splitlines()
    assert problem.startswith("problem: the data folder")
    assert last == "1 problem found"
