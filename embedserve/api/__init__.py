"""HTTP dialects: translate requests and replies, decide nothing."""
