"""What `--help` says below the options of a command."""

_SELECTION = """\
SELECTION (all must hold): ids or their beginnings, and words that take comma lists: methods=A,B  dataset=D  student=S
seeds=0,1  state=running,queued,waiting,stopped,planned,cancelled,failed,done"""

STATUS = f"""\
{_SELECTION}
  kdbench status                      counts, and a line for each run that is not finished
  kdbench status state=failed         what failed, and why
  kdbench status METHOD-cifar100 --watch
queued: in a SLURM job that has not come to it. waiting: for its teacher. planned: nobody has begun it; stopped: somebody
had; both go on with the next kdbench run.
exit status: 1 if one of them failed."""

LOGS = """\
The run's log.txt, the last lines of its epochs.csv, and the end of its SLURM job's log.
  kdbench logs METHOD-digits-resnet8-s0
  kdbench logs METHOD-digits-resnet8-s0 --follow
exit status: 1 if it failed."""

CANCEL = f"""\
{_SELECTION}
  kdbench cancel all
  kdbench cancel METHOD-cifar100 state=queued
Runs that are running keep their state and stop within seconds, on whatever machine; SLURM jobs that have nothing left to do
leave the queue. The same kdbench run command goes on with them."""

REPRODUCE = """\
RUN is a run's folder, or the beginning of an id in the folder of the runs or among the rows of the leaderboard. It is trained
with the values, threads and device that it ran with; its teacher is taken from where it is, or trained first.
  kdbench reproduce METHOD-digits-resnet8-s0
  kdbench reproduce elsewhere/RUN --out /tmp/again
reproduced.json in its new folder says what came out: the accuracies, and what changed in the environment.
exit status: 0 if the weights are the same, bit for bit, else 1."""

EXPORT = """\
One archive holds the rows and tables of the leaderboard, the configuration of each run (its command, where its folder is gone),
what the runs were made with and what is installed here, and checksums for sha256sum -c. Its README.txt says how to check it and
to train its runs once more. A page or a picture of other rows is refused. The same leaderboard gives the same bytes.
  kdbench export --to supplement.zip"""

DIFF = """\
A and B are two methods, or two runs: an id, the beginning of one, or a run folder. Methods are resolved with the
selections and bindings that follow; a run's configuration is the one it ran with.
  kdbench diff METHOD OTHER
  kdbench diff METHOD OTHER dataset=cifar100 recipe=smoke
  kdbench diff METHOD-digits-resnet8-s0 OTHER-digits-resnet8-s0 --runs runs
  kdbench diff runs/RUN elsewhere/RUN
exit status: 1 if something differs that must be equal in one table (shared parameters, dataset, student, protocol)."""

LEADERBOARD = """\
README.md has one table a protocol, dataset and student; tables.csv (full precision) and tables.tex (booktabs) have the same.
  kdbench leaderboard
  kdbench leaderboard --html                  index.html too: sort, filter, and open rows to see runs and their curves
  kdbench leaderboard columns=accuracy,delta,p,top5,ece,corruptions,noise.0.1
  kdbench leaderboard --plots                 plots/TABLE/: cost, curves, severity, exits; plots/critical-difference; SVG and PNG
  kdbench leaderboard --check                 with the columns that README.md says it was made with"""

POWER = """\
For each line of each table: the smallest difference to the student alone that its seeds show now, the smallest that so
many seeds find with a power of 80 %, and how many seeds a difference (in points of accuracy) needs.
  kdbench power
  kdbench power difference=0.3,2 --out leaderboard"""

TUNE = """\
Every method gets the same N trials over the Search.space of its gin file; the first is its gin values. A trial is a run
that never reads the test set: what counts is the mean accuracy over the seeds on the validation split, after the last
epoch. A study goes on where it was, and a larger N continues it.
  kdbench tune METHOD trials=20 dataset=cifar100
  kdbench tune METHOD,OTHER trials=20 seeds=0,1 Split.validation=0.1     selections and shared bindings as in kdbench run
  kdbench tune all trials=20 --dry-run                                   the studies, their trials and search spaces
It ends with the command that runs each method's best values; the rows of such runs say how many trials it took.
exit status: 1 if a method has no trial that finished."""
