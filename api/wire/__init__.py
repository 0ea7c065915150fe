"""The wire: how requests become calls, and answers and refusals become what OpenStack's clients expect.

    routes = [Get("/servers/{id}", show, may="os_compute_api:servers:show")]
    SERVICE = Service(name="nova", type="compute", prefix="/compute/v2.1", routes=routes, errors=NOVA, policy=POLICY)

A handler is `async def show(call: Call)`; it returns a struct, dict or list (JSON), bytes (JSON already), None (empty),
a `Reply` (status, headers) or an aiohttp response (a stream); it raises `schema.refusal` exceptions.
"""

from api.wire.call import Call
from api.wire.route import Delete, Get, Head, Patch, Post, Put, Reply, Route, Service

__all__ = ["Call", "Delete", "Get", "Head", "Patch", "Post", "Put", "Reply", "Route", "Service"]
