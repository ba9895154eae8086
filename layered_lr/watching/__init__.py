"""What is told of runs from their folders: tables of runs, reports, sweeps. Nothing in a folder is imported or run."""
