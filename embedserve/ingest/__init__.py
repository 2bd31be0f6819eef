"""Folder to chunks: scan, extract in a jail, cut. Stores nothing and embeds nothing."""
