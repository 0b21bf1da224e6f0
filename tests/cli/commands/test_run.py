"""`kdbench run` up to the point where runs start, and `kdbench show`, which takes the same words."""

from kdbench.cli.main import main

SEVERAL = ["methods=ce,kd", "dataset=digits", "KD.temperature=1,2.5", "Train.epochs=7,8"]


def test_a_dry_run_shows_the_values_that_tell_runs_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SEVERAL, "--dry-run"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "protocol", "values", "teacher"]
    kd = [line.split("  ") for line in lines if line.startswith("kd-")]
    assert [next(cell for cell in cells if "KD." in cell) for cells in kd] == [
        "KD.temperature=1, Train.epochs=7",
        "KD.temperature=1, Train.epochs=8",
        "KD.temperature=2.5, Train.epochs=7",
        "KD.temperature=2.5, Train.epochs=8",
    ]
    ce = [line for line in lines if line.startswith("ce-digits-resnet8")]
    assert ["Train.epochs=7" in line for line in ce] == [True, False]
    assert lines[-1] == "8 runs: 0 finished, 8 to do"


def test_a_dry_run_refuses_what_this_machine_cannot_do_but_not_for_a_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["run", "methods=ce", "dataset=digits", "Machine.device=cuda", "--dry-run"]
    for more in ([], ["executor=local"], ["workers=2"]):
        assert main([*words, *more]) == 2
        assert "Machine.device=cuda needs a GPU, but this machine has none" in capsys.readouterr().err
    assert main([*words, "executor=slurm"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_show_has_a_part_for_each_protocol_and_each_value(capsys):
    assert main(["show", *SEVERAL]) == 0
    out = capsys.readouterr().out
    assert out.count("# dataset=digits recipe=quick: protocol ") == 2
    assert out.count("# methods=ce") == 2
    assert [out.count(f"KD.temperature = {value}  ") for value in (1.0, 2.5)] == [2, 2]
