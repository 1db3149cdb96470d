"""Several models in one server.

What they need beyond one model is in here, so that the way of the one stays as short as it is:
which models there are (`listing`), whose path a request has (`front`), and whose numbers are whose (`metrics`).
"""
