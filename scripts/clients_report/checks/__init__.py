"""One file for each environment; they run there, where embedserve itself is not installed."""
