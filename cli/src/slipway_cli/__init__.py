"""``kubectl slipway`` (and ``slipway``): what people do on their own machine.

Rooms: `commands` (one module for a command or a family, thin) on top of `session`,
`artifacts` and `screen` (cluster, registry, terminal), on top of `views` (pure functions
from API objects to what is shown). Packages, artifacts and the log are read by the code
that the cluster runs (`slipway_operator.builder`, `slipway_operator.domain`).

Nothing heavy is imported at the top of a module: help and completion answer at once.
"""
