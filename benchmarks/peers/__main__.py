"""``python -m benchmarks.peers``."""

from benchmarks.frame.command import main
from benchmarks.peers.race import BENCHMARK

main(BENCHMARK)
