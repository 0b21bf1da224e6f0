"""Cluster profiles: found, complete, every value checked, overridden on the command line."""

import pytest

from kdbench.cli.main import main
from kdbench.config import places, resolve
from kdbench.errors import UserError
from kdbench.plan import expand
from kdbench.plan import request as request_

pytestmark = pytest.mark.usefixtures("own_plugins")

CE = ["methods=ce", "dataset=digits", "executor=slurm"]


def cluster(*words):
    request = request_.parse([*CE, *words])
    return request.profile


@pytest.mark.parametrize("name", sorted(places.members("cluster")))
def test_every_profile_that_comes_with_kdbench_is_whole(name):
    assert resolve.profile(name).minutes > 0


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        *(("90", 90), ("1:30", 2), ("90:00", 90), ("2:00:00", 120), ("2-0", 2880), ("1-12", 2160)),
        *(("0-0:30", 30), ("1-12:00:01", 2161), ("'45'", 45)),
    ],
)
def test_times_as_sbatch_has_them(time, minutes):
    assert cluster(f"Cluster.time={time}", "Cluster.signal_delay_s=10").minutes == minutes


def test_memory_goes_with_the_gpus():
    assert cluster("Cluster.memory=16G").memory_of(4) == "64G"
    assert cluster().memory_of(4) is None
    assert cluster("Cluster.memory=0").memory_of(4) == "0"  # all of a node
    assert cluster("Cluster.memory='0'").memory_of(1) == "0"


def test_gpus_are_requested_as_the_profile_says():
    assert cluster().options_with(2) == {"gpus-per-node": "2"}
    assert cluster("Cluster.gpu_type=a100").options_with(2) == {"gpus-per-node": "a100:2"}
    gres = ["Cluster.gpu_option=gres", "Cluster.options={'gres': 'lscratch:100', 'exclusive': True}"]
    assert cluster(*gres).options_with(1) == {"gres": "gpu:1,lscratch:100", "exclusive": True}
    assert cluster(*gres, "Cluster.gpu_type=a100").options_with(1)["gres"] == "gpu:a100:1,lscratch:100"
    assert cluster(*gres).options_with(0) == cluster(*gres).options
    assert cluster("Cluster.gpu_option=None").options_with(4) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cluster=defalt"], "unknown cluster 'defalt'; did you mean 'default'?"),
        (["Cluster.tme=5"], "did you mean 'time'?"),
        (["Clster.time=5"], "did you mean 'Cluster'?"),
        (["Cluster.time=soon"], "Cluster.time takes minutes or 'days-hours:minutes:seconds', not 'soon'"),
        (["Cluster.time=0"], "Cluster.time must be at least 1 minute"),
        (["Cluster.gpus=-1"], "Cluster.gpus must be at least 0, not -1"),
        (["Cluster.gpus=two"], "Cluster.gpus takes an integer such as 10, not 'two'"),
        (["Cluster.cpus=0"], "Cluster.cpus must be at least 1"),
        (["Cluster.runs_per_job=0"], "Cluster.runs_per_job must be at least 1"),
        (["Cluster.array_parallelism=0"], "Cluster.array_parallelism must be at least 1"),
        (["Cluster.max_requeues=-1"], "Cluster.max_requeues must be at least 0"),
        (["Cluster.memory=much"], "K, M, G or T, such as '16G', or 0 for all of a node, not 'much'"),
        (["Cluster.memory=16GB"], "Cluster.memory must be"),
        (["Cluster.memory=-1"], "Cluster.memory must be"),
        (["Cluster.memory=16"], "Cluster.memory must be"),
        (
            ["Cluster.gpu_option=gress"],
            "Cluster.gpu_option must be 'gpus-per-node' or 'gres', or None, not 'gress'; did you",
        ),
        (
            ["Cluster.gpu_type=a100", "Cluster.gpu_option=None"],
            "Cluster.gpu_type=a100 has no effect with Cluster.gpu_option",
        ),
        (["Cluster.gpu_type=''"], "Cluster.gpu_type must be a name, or None"),
        (
            ["Cluster.gpus=0", "Cluster.options={'gres': 'gpu:1'}"],
            "Cluster.options cannot give 'gres': 'gpu:1': GPUs are requested by Cluster.gpus and gpu_type, and with Cluster",
        ),
        (["Cluster.options={'tres-per-task': 'cpu:1,gres/gpu:1'}"], "cannot give 'tres-per-task': 'cpu:1,gres/gpu:1'"),
        (["Cluster.options={'gpus': 1}"], "cannot give 'gpus': it is set by Cluster.gpus, gpu_type and gpu_option"),
        (["Cluster.partition=''"], "Cluster.partition must be a name, or None"),
        (
            ["Cluster.time=1", "Cluster.signal_delay_s=60"],
            "signal_delay_s must be at least 1 and below the time limit (60",
        ),
        (["Cluster.options=fast"], "Cluster.options takes options by name, such as {'mail-type': 'END'}, not 'fast'"),
        (["Cluster.options={'time': 5}"], "Cluster.options cannot give 'time': it is set by Cluster.time"),
        (["Cluster.options={'--array': '1'}"], "cannot give '--array': it is set by kdbench"),
        (["Cluster.options={'mail_type': 'END'}"], "takes names as in 'mail-type', not 'mail_type'"),
        (["Cluster.options={'hold': False}"], "True for an option without a value, not False"),
        (["Cluster.setup=echo"], "Cluster.setup takes a list, each item a string, not 'echo'"),
        (["executor=inline", "cluster=default"], "cluster=default requires executor=slurm, not executor=inline"),
        (["executor=inline", "Cluster.time=5"], "Cluster.time requires executor=slurm, not executor=inline"),
        (["workers=2"], "workers=2 requires executor=local, not executor=slurm"),
        (["executor=inline", "runs_per_gpu=2"], "runs_per_gpu=2 requires executor=local or slurm, not executor=inline"),
        (
            ["executor=local", "workers=2", "runs_per_gpu=2"],
            "workers=2 and runs_per_gpu=2 both set the number of processes",
        ),
        (["runs_per_gpu=0"], "runs_per_gpu must be a positive integer, such as runs_per_gpu=2, not '0'"),
        (["run_per_gpu=2"], "unknown selection 'run_per_gpu'; did you mean 'runs_per_gpu'?"),
        (["runs_per_gpu=2", "gpus=2"], "runs_per_gpu=2 is for runs on one GPU, not with gpus=2"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [word for word in CE if word.split("=")[0] not in [w.split("=")[0] for w in words]]
    assert main(["run", *given, *words]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_profile_of_the_users(tmp_path):
    profile = tmp_path / "slurm" / "ours.gin"
    profile.parent.mkdir()
    profile.write_text("# Ours.\nCluster.partition = 'gpu'\n")
    places.add_plugins([str(tmp_path)])
    with pytest.raises(UserError, match=r"'ours' does not set Cluster.account.*include 'slurm/default.gin'"):
        cluster("cluster=ours")
    profile.with_name("theirs.gin").write_text("# Theirs.\ninclude 'slurm/default.gin'\nTrain.epochs = 2\n")
    places.add_plugins([])
    with pytest.raises(
        UserError, match=r"slurm/theirs.gin:3: the cluster 'theirs' binds Train.epochs, which does not belong to it"
    ):
        cluster("cluster=theirs")


def test_a_profile_may_include_another_and_the_command_line_comes_last(tmp_path):
    profile = tmp_path / "slurm" / "ours.gin"
    profile.parent.mkdir()
    profile.write_text("# Ours.\ninclude 'slurm/default.gin'\nCluster.partition = 'gpu'\nCluster.cpus = 8\n")
    places.add_plugins([str(tmp_path)])
    resolved = cluster("cluster=ours", "Cluster.cpus=2")
    assert (resolved.partition, resolved.cpus, resolved.time) == ("gpu", 2, 240)


def test_a_profile_from_before_a_parameter_existed_is_whole(tmp_path):
    lines = (places.own_root() / "slurm" / "default.gin").read_text().splitlines(keepends=True)
    profile = tmp_path / "slurm" / "ours.gin"
    profile.parent.mkdir()
    profile.write_text(
        "".join(line for line in lines if not line.startswith(("Cluster.gpu_type", "Cluster.gpu_option")))
    )
    places.add_plugins([str(tmp_path)])
    assert cluster("cluster=ours") == cluster()


def test_a_cluster_changes_no_run():
    alone = expand.plan(request_.parse(["methods=ce", "dataset=digits"]))
    assert expand.plan(request_.parse([*CE, "cluster=testcluster", "Cluster.time=5"])) == alone


def test_naming_a_cluster_means_slurm_and_slurm_alone_the_default():
    assert request_.parse(["methods=ce", "cluster=testcluster"]).executor == "slurm"
    assert request_.parse(["methods=ce", "executor=slurm"]).cluster == "default"
    assert request_.parse(["methods=ce"]).cluster is None


def test_without_slurm_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", *CE, "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == (
        "kdbench: this machine has no SLURM (sbatch is not on the PATH); run this on a login node\n"
    )
    assert not (tmp_path / "runs").exists()


def test_they_are_listed(capsys):
    assert main(["list", "clusters"]) == 0
    assert "one GPU per job" in capsys.readouterr().out
