"""Training: a spec, a backend, a model and data become a result; the loop, its checkpoints, and how a run goes on."""
