"""What a running server uses, counted by its host since it was started. Its form is standard since 2.48."""

from __future__ import annotations

from typing import Any

from api.compute.asking import ask, not_ready
from api.compute.server import server_in_path
from api.wire import Call, Get
from bus import clock
from schema.compute.question import Diagnose, Diagnosis
from schema.compute.server_state import Server
from schema.compute.task import PowerState
from schema.refusal import Conflict

RULE = "os_compute_api:os-server-diagnostics"

STATES: dict[PowerState, str] = {
    PowerState.NOSTATE: "pending",
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SHUTDOWN: "shutdown",
    PowerState.CRASHED: "crashed",
    PowerState.SUSPENDED: "suspended",
}


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    if server.host is None:
        raise not_ready(server)
    if server.power_state is not PowerState.RUNNING:
        state = STATES[server.power_state]
        raise Conflict(
            f"Cannot 'get_diagnostics' instance {server.id} while it is in power state {state}",
            code="InstanceInvalidState",
        )
    answer = await ask(call, server, Diagnose(server_id=server.id))
    if not isinstance(answer, Diagnosis):
        raise Conflict(f"Server {server.id} cannot be looked into: {getattr(answer, 'fault', 'no answer')}")
    return standard(server, answer) if call.version >= (2, 48) else free(server, answer)


def standard(server: Server, seen: Diagnosis) -> dict[str, Any]:
    """Nova's own form. Whatever nobody has counted is null."""
    up = int((clock.now() - server.launched_at).total_seconds()) if server.launched_at else None
    return {
        "state": STATES[server.power_state],
        # Nova knows no other word for a hypervisor of ours, the pretended one included.
        "driver": "libvirt",
        "hypervisor": seen.hypervisor,
        "hypervisor_os": "linux",
        "uptime": up,
        "config_drive": server.order.config_drive,
        "num_cpus": len(seen.cpu_nanoseconds),
        "num_disks": len(seen.disks),
        "num_nics": len(seen.nics),
        "cpu_details": [
            {"id": number, "time": time, "utilisation": None} for number, time in enumerate(seen.cpu_nanoseconds)
        ],
        "disk_details": [
            {
                "read_bytes": disk.read_bytes,
                "read_requests": disk.read_requests,
                "write_bytes": disk.write_bytes,
                "write_requests": disk.write_requests,
                "errors_count": disk.errors_count,
            }
            for disk in seen.disks
        ],
        "nic_details": [
            {
                "mac_address": nic.mac_address,
                "rx_octets": nic.rx_octets,
                "rx_errors": nic.rx_errors,
                "rx_drop": nic.rx_drop,
                "rx_packets": nic.rx_packets,
                "rx_rate": None,
                "tx_octets": nic.tx_octets,
                "tx_errors": nic.tx_errors,
                "tx_drop": nic.tx_drop,
                "tx_packets": nic.tx_packets,
                "tx_rate": None,
            }
            for nic in seen.nics
        ],
        "memory_details": {"maximum": seen.memory_maximum_kb // 1024, "used": seen.memory_used_kb // 1024},
    }


def free(server: Server, seen: Diagnosis) -> dict[str, Any]:
    """Before 2.48: names and numbers as the libvirt driver has always put them."""
    shown: dict[str, Any] = {f"cpu{number}_time": time for number, time in enumerate(seen.cpu_nanoseconds)}
    for disk in seen.disks:
        shown |= {
            f"{disk.device}_read_req": disk.read_requests,
            f"{disk.device}_read": disk.read_bytes,
            f"{disk.device}_write_req": disk.write_requests,
            f"{disk.device}_write": disk.write_bytes,
            f"{disk.device}_errors": disk.errors_count,
        }
    for nic in seen.nics:
        shown |= {
            f"{nic.tap}_rx": nic.rx_octets,
            f"{nic.tap}_rx_packets": nic.rx_packets,
            f"{nic.tap}_rx_errors": nic.rx_errors,
            f"{nic.tap}_rx_drop": nic.rx_drop,
            f"{nic.tap}_tx": nic.tx_octets,
            f"{nic.tap}_tx_packets": nic.tx_packets,
            f"{nic.tap}_tx_errors": nic.tx_errors,
            f"{nic.tap}_tx_drop": nic.tx_drop,
        }
    shown["memory"] = seen.memory_maximum_kb
    return shown | {f"memory-{name}": value for name, value in seen.memory.items()}


routes = [Get("/servers/{id}/diagnostics", show, may=RULE)]
