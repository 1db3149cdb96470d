"""Several worker processes in one pod that share one loaded model.

The first process loads and proves the model, opens the sockets, forks the workers, and from then
on only looks after them: it passes signals on, replaces a worker that died, and ends with the last.
"""
