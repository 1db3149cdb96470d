"""The operator's process: handlers that only ring, a worker for each key, observe → plan → act."""
