"""Proof: what differs between runs, whether a run can be reproduced, and the archive for a paper."""
