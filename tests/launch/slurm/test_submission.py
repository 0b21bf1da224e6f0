"""What is submitted, without a cluster: arrays by what jobs ask for and wait for, options of sbatch, the dry run."""

import os
import pickle
import re
from pathlib import Path

import pytest

from kdbench.cli.main import main
from kdbench.config import places
from kdbench.errors import UserError
from kdbench.launch import backlog, launchers
from kdbench.launch.slurm import queue as queue_
from kdbench.launch.slurm import submission as submission_
from kdbench.launch.slurm.job import Job
from kdbench.launch.slurm.queue import QueuedJob
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.store.folder import CANCELLED, CHECKPOINT, SUBMISSION, RunFolder

ALL = ["methods=ce,kd,byot", "dataset=digits", "seeds=0,1"]


def submission(runs, *words, jobs=None):
    request = request_.parse([*words, "executor=slurm"])
    specs = backlog.open_runs(expand.plan(request), runs)
    queue = {id_: QueuedJob(id_, state) for id_, state in (jobs or {}).items()}
    return submission_.Submission(specs, runs, request.profile, queue, request.runs_per_gpu)


def runs_of(array):
    return [[re.sub(r"-digits|-\w{10}$", "", spec.id) for spec in job] for job in array.jobs]


def put_down(runs, specs, job, state=None):
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        folder.enqueue(spec.plain())
        folder.write(SUBMISSION, {"job": job}, lasting=False)
        if state:
            folder.finish({**spec.identity(), "status": state})


def test_teachers_are_one_array_and_only_their_students_wait_for_it(tmp_path):
    teachers, alone, students = submission(tmp_path, *ALL).arrays
    assert runs_of(teachers) == [["ce-resnet20-s0"]]
    assert runs_of(alone) == [["ce-resnet8-s0"], ["ce-resnet8-s1"], ["byot-resnet8-s0"], ["byot-resnet8-s1"]]
    assert runs_of(students) == [["kd-resnet8-s0"], ["kd-resnet8-s1"]]
    assert (teachers.teachers, alone.teachers) == ((), ())
    assert students.teachers == (teachers.jobs[0][0].id,)


def test_students_of_other_teachers_wait_for_those_alone(tmp_path):
    arrays = submission(tmp_path, "methods=kd", "dataset=digits", "teacher=resnet14,resnet20").arrays
    assert [runs_of(array) for array in arrays] == [
        [["ce-resnet14-s0"], ["ce-resnet20-s0"]], [["kd-resnet8-s0"]], [["kd-resnet8-s0"]],
    ]  # fmt: skip
    assert [array.teachers for array in arrays[1:]] == [(arrays[0].jobs[0][0].id,), (arrays[0].jobs[1][0].id,)]


def test_a_chain_of_teachers_is_submitted_from_its_top(tmp_path, own_plugins):
    places.add_plugins([str(Path(__file__).parents[2] / "teaching")])
    words = ["methods=dense", "dataset=digits", "teacher=resnet32", "seeds=0,1"]
    found = submission(tmp_path, *words).arrays
    assert [runs_of(array) for array in found] == [
        [["ce-resnet32-s0"]], [["dense-resnet20-s0"]], [["dense-resnet14-s0"]], [["dense-resnet8-s0"], ["dense-resnet8-s1"]],
    ]  # fmt: skip
    above = [array.jobs[0][0].id for array in found[:3]]
    assert [list(array.teachers) for array in found] == [[], above[:1], above[:2], above]
    specs = [array.jobs[0][0] for array in found]
    put_down(tmp_path, specs[:2], "7")
    behind = submission(tmp_path, *words, jobs={"7": "PENDING"}).arrays
    assert [(list(array.teachers), array.behind) for array in behind] == [([], ("7",)), (above[2:], ("7",))]


def test_runs_that_share_a_gpu_are_in_one_job(tmp_path):
    arrays = submission(tmp_path, *ALL, "runs_per_gpu=3").arrays
    assert [list(map(len, array.jobs)) for array in arrays] == [[1], [3, 1], [2]]
    assert all(array.gpus == 1 and array.runs_per_gpu == 3 for array in arrays)
    wide = submission(tmp_path, *ALL, "runs_per_gpu=2", "Cluster.gpus=2").arrays
    assert [list(map(len, array.jobs)) for array in wide] == [[1], [4], [2]]
    larger = submission(tmp_path, *ALL, "runs_per_gpu=2", "Cluster.runs_per_job=3").arrays
    assert [list(map(len, array.jobs)) for array in larger] == [[1], [3, 1], [2]]
    with pytest.raises(UserError, match=r"runs_per_gpu=2 needs jobs with GPUs, but Cluster\.gpus=0"):
        submission(tmp_path, *ALL, "runs_per_gpu=2", "Cluster.gpus=0")


def test_several_runs_in_one_job(tmp_path):
    teachers, alone, students = submission(tmp_path, *ALL, "Cluster.runs_per_job=3").arrays
    assert [list(map(len, array.jobs)) for array in (teachers, alone, students)] == [[1], [3, 1], [2]]
    assert str(alone) == "4 runs in 2 jobs"
    assert str(students) == f"2 runs in 1 job, after the job of {students.teachers[0]}"


def test_arrays_are_no_longer_than_slurm_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(submission_, "LONGEST", 3)
    (first, second) = submission(tmp_path, "methods=ce", "dataset=digits", "seeds=0,1,2,3,4").arrays
    assert (len(first.jobs), len(second.jobs)) == (3, 2)


def options(planned, which=0):
    return dict(option.removeprefix("--").partition("=")[::2] for option in planned.options(planned.arrays[which]))


def test_options_of_sbatch(tmp_path):
    words = [
        "Cluster.partition=gpu",
        "Cluster.account=me",
        "Cluster.qos=long",
        "Cluster.constraint=a100",
        "Cluster.gpus=2",
    ]
    words += ["Cluster.cpus=8", "Cluster.memory=16G", "Cluster.time=1-0:00", "Cluster.array_parallelism=3"]
    words += ["Cluster.signal_delay_s=60", "Cluster.options={'mail-type': 'END', 'exclusive': True}"]
    planned = submission(tmp_path, "methods=ce,byot", "dataset=digits", "seeds=0,1", *words)
    assert options(planned) == {
        **{"partition": "gpu", "account": "me", "qos": "long", "constraint": "a100", "gpus-per-node": "2"},
        **{"cpus-per-task": "8", "mem": "16G", "time": "1440", "array": "0-3%3", "signal": "USR2@60"},
        **{"mail-type": "END", "exclusive": "", "requeue": "", "job-name": "kdbench", "nodes": "1"},
        **{"ntasks-per-node": "1", "open-mode": "append", "output": f"{tmp_path}/.slurm/%A_%a_0_log.out"},
    }


def test_options_that_the_profile_leaves_to_slurm_are_not_given(tmp_path):
    planned = submission(tmp_path, "methods=kd", "dataset=digits", "Cluster.gpus=0")
    assert set(options(planned)) == {
        *("cpus-per-task", "job-name", "nodes", "ntasks-per-node", "open-mode", "output", "requeue", "signal", "time"),
    }
    assert options(planned, 1)["dependency"] == f"afterany:job-of-{planned.arrays[0].jobs[0][0].id}"


def test_gpus_by_gres(tmp_path):
    words = [
        "methods=ce",
        "dataset=digits",
        "gpus=4",
        "Cluster.gpu_option=gres",
        "Cluster.gpu_type=a100",
        "Cluster.memory=0",
    ]
    planned = submission(tmp_path, *words, "Cluster.gpus_per_node=2")
    given = options(planned)
    assert (given["gres"], given["mem"], given["nodes"]) == ("gpu:a100:2", "0", "2")
    assert "gpus-per-node" not in given


def test_a_run_for_the_cpu_asks_for_no_gpu(tmp_path):
    (array,) = submission(tmp_path, "methods=ce", "dataset=digits", "Machine.device=cpu").arrays
    assert array.gpus == 0


def test_a_run_with_more_gpus_than_a_node_has_goes_over_several_nodes(tmp_path):
    words = ["methods=ce", "dataset=digits", "gpus=8", "Cluster.cpus=3", "Cluster.memory=5G"]
    planned = submission(tmp_path, *words, "Cluster.gpus_per_node=4")
    names = ("nodes", "gpus-per-node", "cpus-per-task", "mem", "ntasks-per-node")
    assert [options(planned, 0)[name] for name in names] == ["2", "4", "12", "20G", "1"]
    with pytest.raises(UserError, match=r"gpus=8 cannot be shared evenly by 3 nodes .* pass 6 or 9"):
        submission(tmp_path, *words, "Cluster.gpus_per_node=3")


def test_runs_over_several_gpus_are_an_array_of_their_own(tmp_path):
    words = ["methods=ce", "dataset=digits"]
    planned = submission(tmp_path, *words, "gpus=4", "Cluster.cpus=4", "Cluster.memory=8G")
    specs = [
        spec for number in (1, 4) for spec in expand.plan(request_.parse([*words, f"gpus={number}", f"seeds={number}"]))
    ]
    planned = submission_.Submission(specs, tmp_path, planned._cluster, {})
    assert [(array.gpus, array.processes, len(array.jobs)) for array in planned.arrays] == [(1, 1, 1), (4, 4, 1)]
    assert [options(planned, 1)[name] for name in ("gpus-per-node", "cpus-per-task", "mem")] == ["4", "16", "32G"]


def test_what_a_job_still_has_to_do_is_left_to_it(tmp_path):
    specs = expand.plan(request_.parse(ALL))
    put_down(tmp_path, specs[:3], "7_0")
    planned = submission(tmp_path, *ALL, jobs={"7_0": "PENDING"})
    assert set(planned.submitted) == {spec.id for spec in specs[:3]}
    assert [(runs_of(array), array.behind) for array in planned.arrays] == [
        ([["kd-resnet8-s0"], ["kd-resnet8-s1"]], ("7_0",)), ([["byot-resnet8-s0"], ["byot-resnet8-s1"]], ()),
    ]  # fmt: skip
    assert options(planned)["dependency"] == "afterany:7_0"


@pytest.mark.parametrize(
    ("state", "of_the_job", "cancelled", "behind"),
    [
        (None, None, False, ()),  # the job is no more
        (None, "COMPLETING", False, ("7",)),  # it was cancelled, say, and is about to end
        (None, "RUNNING", True, ("7",)),  # it heard that the run is cancelled, and now it is wanted again
        ("failed", "RUNNING", False, ()),  # it has other runs to do
    ],
)
def test_what_a_job_does_no_longer_is_submitted_again(tmp_path, state, of_the_job, cancelled, behind):
    words = ["methods=ce", "dataset=digits"]
    put_down(tmp_path, expand.plan(request_.parse(words)), "7", state)
    if cancelled:
        (RunFolder(tmp_path, expand.plan(request_.parse(words))[0].id) / CANCELLED).touch()
    planned = submission(tmp_path, *words, jobs={"7": of_the_job} if of_the_job else {"8": "RUNNING"})
    assert not planned.submitted
    assert [array.behind for array in planned.arrays] == [behind]


def test_a_teacher_is_left_out_where_its_students_have_jobs(tmp_path):
    *_, student = specs = expand.plan(request_.parse(["methods=kd", "dataset=digits"]))
    put_down(tmp_path, [student], "7")
    assert len(specs) == 2
    assert not submission(tmp_path, "methods=kd", "dataset=digits", jobs={"7": "PENDING"}).arrays


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A sbatch that counts jobs from 40 on and keeps what it gets, beside a squeue that knows of no job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    count = "n=$(($(cat $0.n 2>/dev/null || echo 39) + 1)); echo $n >$0.n; cp $1 $0.$n"
    scripts = {"sbatch": f"{count}; echo Submitted batch job $n", "squeue": "", "scontrol": "", "srun": ""}
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder / "sbatch"


def test_submission(sbatch, tmp_path, capsys):
    assert main(["run", *ALL, "executor=slurm", "--dry-run"]) == 0
    dry = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  sbatch ")]
    assert main(["run", *ALL, "executor=slurm"]) == 0
    out = capsys.readouterr().out
    assert "submitted as job 40: 1 run in 1 job\n" in out
    assert "submitted as jobs 41_[0-3]: 4 runs in 4 jobs\n" in out
    assert "submitted as jobs 42_[0-1]: 2 runs in 2 jobs, after the job of ce-digits-resnet20-s0" in out
    assert "kdbench status" in out

    teacher = next((tmp_path / "runs").glob("ce-digits-resnet20-*"))
    for number, options in zip((40, 41, 42), dry, strict=True):
        text = sbatch.with_name(f"sbatch.{number}").read_text()
        said = [option.replace(f"job-of-{teacher.name}", "40") for option in options]
        assert re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE) == said

    told = RunFolder(tmp_path / "runs", teacher.name).read(SUBMISSION)
    assert told["job"] == "40"
    assert told["log"] == str(tmp_path / "runs/.slurm/40_0_log.out")
    assert set(told) == {"job", "cluster", "submitted_at", "commit", "clean", "log"}
    kd = next((tmp_path / "runs").glob("kd-digits-resnet8-s1-*"))
    assert RunFolder(tmp_path / "runs", kd.name).read(SUBMISSION)["job"] == "42_1"
    content = (tmp_path / "runs/.slurm/42_1_submitted.pkl").read_bytes()
    assert len(content) < 1000
    job = pickle.loads(content).function
    assert isinstance(job, Job)
    assert (job.ids, job.gpus, job.processes) == ((kd.name,), 1, 1)


def test_the_folder_of_pickles_is_the_users_alone(sbatch, tmp_path):
    assert main(["run", "methods=ce", "dataset=digits", "executor=slurm"]) == 0
    assert (tmp_path / "runs/.slurm").stat().st_mode & 0o777 == 0o700


def test_the_dry_run_writes_nothing_and_needs_no_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "methods=ce", "dataset=digits", "executor=slurm", "--dry-run"]) == 0
    assert "no estimate: no finished run like it" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_job_gets_the_environment_of_its_profile_and_not_of_the_callers_job(sbatch, tmp_path, monkeypatch):
    sbatch.write_text(sbatch.read_text().replace("#!/bin/sh\n", "#!/bin/sh\nenv >$0.env\n"))
    kept = {"SLURM_CONF": "/etc/slurm/slurm.conf", "OMP_NUM_THREADS": "2", "PYTHONPATH": "/own", "SLURMISH": "1"}
    callers = [
        "SLURM_MEM_PER_CPU",
        "SLURM_JOB_ID",
        "SBATCH_PARTITION",
        "SRUN_CPUS_PER_TASK",
        "SALLOC_ACCOUNT",
        "PMI_RANK",
    ]
    callers += ["SUBMITIT_EXECUTOR", "WORLD_SIZE", "RANK", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES"]
    for name, value in {**kept, **dict.fromkeys(callers, "1")}.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "methods=ce", "dataset=digits", "executor=slurm"]) == 0
    handed_on = dict(
        line.split("=", 1) for line in sbatch.with_name("sbatch.env").read_text().splitlines() if "=" in line
    )
    assert kept.items() <= handed_on.items()
    assert not set(callers) & set(handed_on)
    assert os.environ["SLURM_JOB_ID"] == "1"  # this process keeps its own
    (command,) = re.findall(r"^srun .*$", sbatch.with_name("sbatch.40").read_text(), re.MULTILINE)
    assert " -P -u -m submitit.core._submit " in command
    assert (tmp_path / "runs/.slurm").stat().st_mode & 0o777 == 0o700


def test_odd_bytes_of_sbatch_are_shown(sbatch, tmp_path, capsys):
    words = ["run", "methods=ce", "dataset=digits", "executor=slurm"]
    works = sbatch.read_text()
    sbatch.write_text(
        works.replace("echo Submitted", "printf 'Gru\\337 an job 7\\n' | tee /dev/stderr; echo Submitted")
    )
    assert main(words) == 0
    assert "submitted as job 40: 1 run in 1 job\n" in capsys.readouterr().out
    sbatch.write_text("#!/bin/sh\nprintf 'sbatch: error: kein Ger\\344t\\n' >&2; exit 1\n")
    assert main([*words, "seeds=1"]) == 2
    assert capsys.readouterr().err == "kdbench: sbatch refused: kein Ger\\xe4t\n"
    sbatch.write_text("#!/bin/sh\necho nothing\n")
    assert main([*words, "seeds=1"]) == 2
    assert capsys.readouterr().err == "kdbench: sbatch printed no job id: nothing\n"
    assert sorted(path.name for path in (tmp_path / "runs/.slurm").iterdir()) == [
        "40_submission.sh",
        "40_submitted.pkl",
    ]


@pytest.mark.parametrize(
    ("refuse_from", "status", "more"), [(40, 2, ""), (42, 1, "; 5 runs had already been submitted")]
)
def test_what_sbatch_refuses(sbatch, capsys, refuse_from, status, more):
    script = sbatch.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nrefuse={refuse_from}\n")
    refusal = "if [ $n -ge $refuse ]; then echo 'sbatch: error: no such partition' >&2; exit 1; fi; echo Submitted"
    sbatch.write_text(script.replace("echo Submitted", refusal))
    assert main(["run", *ALL, "executor=slurm"]) == status
    assert capsys.readouterr().err == f"kdbench: sbatch refused: no such partition{more}\n"


def test_a_slurm_that_does_not_answer(sbatch, capsys):
    sbatch.with_name("squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: unable to contact' >&2; exit 1\n")
    assert main(["run", *ALL, "executor=slurm", "--dry-run"]) == 0
    assert main(["run", *ALL, "executor=slurm"]) == 2
    assert capsys.readouterr().err == "kdbench: SLURM did not respond; check that squeue works\n"


def test_what_is_finished_is_shown_and_not_submitted(sbatch, tmp_path, capsys):
    words = ["run", "methods=ce", "dataset=digits", "Train.epochs=1", "Train.warmup=0"]
    assert main(words) == 0
    assert main([*words, "executor=slurm"]) == 0
    assert "the run is already finished" in capsys.readouterr().err
    assert not sbatch.with_name("sbatch.n").exists()


def test_the_same_command_leaves_submitted_runs_to_their_jobs(sbatch, capsys):
    assert main(["run", *ALL, "executor=slurm"]) == 0
    jobs = ["40", *(f"41_{task}" for task in range(4)), *(f"42_{task}" for task in range(2))]
    queue = "".join(f"{job}|{job.partition('_')[0]}|PENDING||Priority\n" for job in jobs)
    sbatch.with_name("squeue").write_text(f"#!/bin/sh\ncat <<END\n{queue}END\n")
    capsys.readouterr()
    assert main(["run", *ALL, "executor=slurm"]) == 0
    assert capsys.readouterr().out == "7 runs are already in submitted jobs: 40, 41, 42\nnothing was submitted\n"
    assert main(["run", *ALL[:2], "seeds=0,1,2", "executor=slurm"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("7 runs are already in submitted jobs: 40, 41, 42\nsubmitted as ")
    assert "kdbench status" in out


def test_a_run_that_finishes_while_squeue_answers_is_not_submitted_again(tmp_path, monkeypatch):
    request = request_.parse(["methods=ce", "dataset=digits", "seeds=0,1", "executor=slurm"])
    first, second = specs = backlog.open_runs(expand.plan(request), tmp_path)
    put_down(tmp_path, specs, "7")

    def read(users):
        put_down(tmp_path, [first], "7", "finished")
        (tmp_path / first.id / CHECKPOINT).touch()
        return {"7": QueuedJob("7", "RUNNING")}

    monkeypatch.setattr(queue_, "read", read)
    monkeypatch.setattr(submission_, "is_here", lambda: True)
    handovers = []
    launchers.slurm(launchers.Workload(specs, request, tmp_path, None), handovers.append)
    assert handovers == [launchers.Handover(1, "7", earlier=True)]
    assert RunFolder(tmp_path, second.id).state() == "absent"
