"""What `scripts/quantization` runs: it measures the recipes and writes docs/quantization.md."""
