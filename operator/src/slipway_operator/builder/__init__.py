"""What runs in the build, train and export Jobs beside the project's code.

Each verb of the command ``slipway-builder`` (``verbs``) is one container: it reads a request
from its environment, works in the Job's volumes, and leaves an answer as its termination
message. No file of a project is ever executed here but by the verb ``run``, which holds no
credential.

Neighbours: ``domain.requests`` is the wire to the operator; ``exporter`` runs in the
project's own image and leaves its files in ``/workspace`` for the verbs that push.
"""
