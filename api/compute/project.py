"""Project ids that callers name: quotas and flavor access are for projects that are there."""

from __future__ import annotations

from bus.cloud import Cloud
from schema.refusal import Invalid


async def must_be_project(cloud: Cloud, project_id: str) -> None:
    """Raise Invalid (400, as Nova answers) unless there is such a project."""
    stream = f"project/{project_id}"
    document = (await cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise Invalid(f"Project ID {project_id} is not a valid project.")
