"""One measurement of everything on a GPU host, in stages that resume: `python -m bros_sglang.evals.gpu`."""
