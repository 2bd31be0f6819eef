"""Load on a real server, and what it must stand: each scenario gives figures, targets judge."""
