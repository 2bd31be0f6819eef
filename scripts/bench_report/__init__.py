"""What `scripts/bench` runs: it measures speed and fairness and writes docs/performance.md."""
