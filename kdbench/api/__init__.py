"""kdbench from Python: functions that plan, run and read back, and return data. `import kdbench` offers them.

import kdbench

plan = kdbench.plan("methods=ce,kd dataset=digits seeds=0-2")
results = plan.run()
for table in kdbench.tables(results):
    print(table.title, [(row.rank, row.method) for row in table.rows])
student = kdbench.load_student(f"runs/{results['run'][0]}")
"""

from kdbench.api.networks import load_student, wrap
from kdbench.api.plans import Plan, plan, run
from kdbench.api.results import load_results, tables

__all__ = ["Plan", "load_results", "load_student", "plan", "run", "tables", "wrap"]
