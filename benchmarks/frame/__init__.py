"""What every benchmark shares: alternated rounds, verdicts, reports, pictures, processes, the command."""
