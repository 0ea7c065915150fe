"""Project ids that callers name: quotas and flavor access are for projects that are there."""

from __future__ import annotations

from api.wire import Call
from schema.refusal import Invalid


async def must_be_project(call: Call, project_id: str) -> None:
    """Raise Invalid (400, as Nova answers) unless there is such a project. The token's own is."""
    if project_id == call.token.project_id:
        return
    stream = f"project/{project_id}"
    document = (await call.cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise Invalid(f"Project ID {project_id} is not a valid project.")
