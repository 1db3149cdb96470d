"""The two kinds as frozen pydantic models: the one source of ``crds/*.yaml``.

Its neighbours: everybody reads these models; `python -m slipway_operator.api`
writes the CRDs and the tables of docs/spec/ from them.
"""

from slipway_operator.api.common import API_VERSION, GROUP, VERSION, Condition, EnvVar, Resources
from slipway_operator.api.model_deployment import (
    Canary,
    Environment,
    Export,
    Model,
    ModelDeploymentSpec,
    PackageListRef,
    Parity,
    RollBackOn,
    RollbackTo,
    Rollout,
    Standby,
    Train,
)
from slipway_operator.api.model_deployment_status import (
    ExportStatus,
    LiveStatus,
    ModelDeploymentStatus,
    SourceStatus,
    StepName,
    StepState,
    StepStatus,
    TrainingStatus,
)
from slipway_operator.api.retrain_job import RetrainJobSpec, RetrainJobStatus
from slipway_operator.api.schema import parse_duration, parse_size
from slipway_operator.api.serving import Autoscaling, Native, Records, Serving, Traces
from slipway_operator.api.source import Follow, GitSource, PackageSource, Source, SvnSource

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "Autoscaling",
    "Canary",
    "Condition",
    "EnvVar",
    "Environment",
    "Export",
    "ExportStatus",
    "Follow",
    "GitSource",
    "LiveStatus",
    "Model",
    "ModelDeploymentSpec",
    "ModelDeploymentStatus",
    "Native",
    "PackageListRef",
    "PackageSource",
    "Parity",
    "Records",
    "Resources",
    "RetrainJobSpec",
    "RetrainJobStatus",
    "RollBackOn",
    "RollbackTo",
    "Rollout",
    "Serving",
    "Source",
    "SourceStatus",
    "Standby",
    "StepName",
    "StepState",
    "StepStatus",
    "SvnSource",
    "Traces",
    "Train",
    "TrainingStatus",
    "parse_duration",
    "parse_size",
]
