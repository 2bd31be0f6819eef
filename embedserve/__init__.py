"""An embedding and retrieval server.

Start reading at `bootstrap/house.py`, the one place where the parts meet.
"""

__version__ = "0.1.0"
