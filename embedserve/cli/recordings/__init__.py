"""What known clients send and what they need back: one file each, replayed by tests and doctor."""
