"""Ablate a method: search every arm alike, run what was found with several seeds, and compare.

python scripts/ablate.py san demo                       # every arm of benchmarks/ablations/san.yaml
python scripts/ablate.py san vtab --launcher slurm --jobs 8 --search   # first the search,
python scripts/ablate.py san vtab --launcher slurm --jobs 8            # then the rest
python scripts/ablate.py san demo --methods san,san:propagation=off --tasks count --plan
"""
