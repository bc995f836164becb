"""Settings of where the models run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from streamsvc.core import web_address
from streamsvc.core.media_config import Group


class Workers(Group):
    """Where the models run: in child processes of this service, or on a Ray cluster."""

    transport: Literal["process", "ray"] = "process"  # "ray": deployments of Ray Serve; extra "cluster"
    address: Annotated[str, AfterValidator(web_address.ray_cluster)] = "auto"  # of Ray: "auto" or HOST:PORT
    replicas: int = Field(1, ge=1)  # of each model at least; this and below: `streamsvc cluster serve-models`
    max_replicas: int = Field(8, ge=1)  # Ray Serve adds them as requests wait, and takes them away again
    replica_requests: float = Field(2.0, gt=0)  # that wait or run at a replica on average; more: one is added
    replica_cores: float = Field(1.0, ge=0)  # that Ray reserves for a replica
    replica_gpus: float = Field(0.0, ge=0)  # the same, where the model's device is "cuda"

    @model_validator(mode="after")
    def _can_scale(self) -> Workers:
        if self.max_replicas < self.replicas:
            raise ValueError("max_replicas is less than replicas")
        return self
