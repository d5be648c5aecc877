"""Bodies that the API takes. Names may come in snake case (kfp) or camel case, as with Kubeflow's gateway."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request

from embedded.runs.errors import BadRequestError

B = TypeVar("B", bound="Body")
_LONGEST_NAME = 256


class Body(BaseModel):
    """Base of the bodies; what the server itself fills in is accepted and ignored, the unknown is refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class ExperimentBody(Body):
    """V2beta1Experiment."""

    display_name: str = Field(min_length=1, max_length=_LONGEST_NAME)
    description: str = ""
    namespace: str = ""
    experiment_id: Any = None
    created_at: Any = None
    storage_state: Any = None
    last_run_created_at: Any = None


class PipelineBody(Body):
    """V2beta1Pipeline."""

    display_name: str = Field(default="", max_length=_LONGEST_NAME)
    name: str = Field(default="", max_length=_LONGEST_NAME)
    description: str = ""
    namespace: str = ""
    tags: dict[str, str] = {}
    pipeline_id: Any = None
    created_at: Any = None
    error: Any = None


class VersionReference(Body):
    """V2beta1PipelineVersionReference; without a version the pipeline's newest is meant."""

    pipeline_id: str
    pipeline_version_id: str | None = None


class RuntimeConfig(Body):
    """V2beta1RuntimeConfig."""

    parameters: dict[str, Any] = {}
    pipeline_root: str = ""


class RunBody(Body):
    """V2beta1Run."""

    display_name: str = Field(min_length=1, max_length=_LONGEST_NAME)
    description: str = ""
    experiment_id: str = ""
    pipeline_spec: Any = None
    pipeline_version_reference: VersionReference | None = None
    pipeline_version_id: str = ""
    runtime_config: RuntimeConfig = RuntimeConfig()
    service_account: str = ""
    run_id: Any = None
    storage_state: Any = None
    created_at: Any = None
    scheduled_at: Any = None
    finished_at: Any = None
    state: Any = None
    error: Any = None
    run_details: Any = None
    state_history: Any = None
    recurring_run_id: Any = None
    plugins_input: Any = None
    plugins_output: Any = None


class CronSchedule(Body):
    """V2beta1CronSchedule."""

    cron: str
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class PeriodicSchedule(Body):
    """V2beta1PeriodicSchedule."""

    interval_second: int = Field(ge=1)
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class Trigger(Body):
    """V2beta1Trigger."""

    cron_schedule: CronSchedule | None = None
    periodic_schedule: PeriodicSchedule | None = None


class RecurringBody(Body):
    """V2beta1RecurringRun."""

    display_name: str = Field(min_length=1, max_length=_LONGEST_NAME)
    description: str = ""
    experiment_id: str = ""
    pipeline_spec: Any = None
    pipeline_version_reference: VersionReference | None = None
    pipeline_version_id: str = ""
    runtime_config: RuntimeConfig = RuntimeConfig()
    service_account: str = ""
    max_concurrency: int = Field(default=1, ge=1, le=10)
    trigger: Trigger
    mode: Literal["ENABLE", "DISABLE"] = "DISABLE"
    no_catchup: bool = False
    namespace: str = ""
    recurring_run_id: Any = None
    created_at: Any = None
    updated_at: Any = None
    status: Any = None
    error: Any = None
    plugins_input: Any = None


async def read_body(request: Request, kind: type[B]) -> B:
    """Read a JSON body.

    Raises:
        BadRequestError: It is no JSON, or a field is wrong; the text names each.
    """
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BadRequestError(f"{request.method} {request.url.path}: {problems}") from error
