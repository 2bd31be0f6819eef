"""Ingestion against the engine alone; run by scripts/ingest_bench."""
