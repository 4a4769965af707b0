"""Many runs from one plan: what they are, how they stand, who runs them. The command line is tools/sweep.py.

Reading a plan and telling how its runs stand needs neither torch nor submitit; only `job`, `local` and `slurm`, which
run something, import the latter.
"""
