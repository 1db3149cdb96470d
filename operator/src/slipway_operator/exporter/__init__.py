"""What runs in a project's own environment: the supervisor of training, and the export to ONNX.

The directory is copied to ``/opt/slipway/exporter`` and run as a script there,
under interpreters and libraries that the project chose. So: standard library
only (plus, in the export's worker, what it converts with), Python 3.9 syntax,
relative imports, and nothing of ``slipway_operator``. Neighbours: the builder
reads what this room leaves in ``/workspace``; the operator reads its termination
messages. The files are described in ``docs/design`` and ``docs/export.md``.
"""
