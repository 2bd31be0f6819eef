"""Settings to a running house: the one place where the parts meet.

Import from the modules: `sources` and `address` are light, and commands that ask a running server
load those alone; `house` and `engine` load every part.
"""
