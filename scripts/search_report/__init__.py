"""Search on an index of many chunks; run by scripts/search_bench."""
