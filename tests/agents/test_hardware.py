"""What a host has for guests to have for themselves, as libvirt tells of it; and how busy it is."""

from xml.etree import ElementTree as ET

import pytest

from agents.hypervisor.hardware import cells, dedicated, devices
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.libvirt import LibvirtDriver
from agents.hypervisor.meter import Meter
from agents.hypervisor.simulated import SimulatedDriver
from agents.hypervisor.traits import _FEATURES, traits
from bus.config import ConfigurationError, Hardware
from handlers.placement.trait import standard_traits
from schema.compute.topology import HostCell, HostDevice

CAPABILITIES = ET.XML("""
<capabilities><host><topology><cells num="2">
  <cell id="0">
    <memory unit="KiB">8388608</memory>
    <pages unit="KiB" size="4">1572864</pages>
    <pages unit="KiB" size="2048">512</pages>
    <pages unit="KiB" size="1048576">1</pages>
    <cpus num="4">
      <cpu id="0" socket_id="0" die_id="0" core_id="0" siblings="0,2"/>
      <cpu id="1" socket_id="0" die_id="0" core_id="1" siblings="1,3"/>
      <cpu id="2" socket_id="0" die_id="0" core_id="0" siblings="0,2"/>
      <cpu id="3" socket_id="0" die_id="0" core_id="1" siblings="1,3"/>
    </cpus>
  </cell>
  <cell id="1">
    <memory unit="KiB">4194304</memory>
    <pages unit="KiB" size="2048">0</pages>
    <cpus num="2"><cpu id="4" socket_id="1" core_id="0" siblings="4"/><cpu id="5"/></cpus>
  </cell>
</cells></topology></host></capabilities>
""")


def node(address, ids, more="", numa=""):
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    vendor, product = ids.split(":")
    return f"""
    <device><name>pci</name><capability type="pci">
      <domain>0x{domain}</domain><bus>0x{bus}</bus><slot>0x{slot}</slot><function>0x{function}</function>
      <product id="0x{product}">it</product><vendor id="0x{vendor}">them</vendor>{more}{numa}
    </capability></device>"""


OF = '<address domain="0x0000" bus="0x3b" slot="0x00" function="0x0"/>'
VIRTUAL = f'<capability type="phys_function">{OF}</capability>'
PHYSICAL = '<capability type="virt_functions" maxCount="4"/>'
NODES = [
    node("0000:3b:00.0", "8086:154d", PHYSICAL, '<numa node="1"/>'),
    node("0000:3b:10.1", "8086:10ed", VIRTUAL, '<numa node="1"/>'),
    node("0000:af:00.0", "10de:1eb8"),
    node("0000:b0:00.0", "10de:1eb8"),
    '<device><name>computer</name><capability type="system"/></device>',
]


def test_numa_nodes_with_their_cores_memory_and_pages():
    first, second = cells(CAPABILITIES)
    assert first == HostCell(
        id=0, cpus=(0, 1, 2, 3), siblings=((0, 2), (1, 3)), memory_mb=8192 - 1024 - 1024, pages={2048: 512, 1048576: 1}
    )
    assert second == HostCell(id=1, cpus=(4, 5), memory_mb=4096, socket=1)


def test_hosts_that_are_one_machine_part_what_it_has():
    there = cells(CAPABILITIES, 2)
    assert (there[0].memory_mb, there[0].pages) == (4096 - 512, {2048: 256})
    assert [dedicated("1-5,^2", there, turn, 2) for turn in range(2)] == [(1, 4), (3, 5)]
    assert dedicated("", there) == ()
    assert dedicated("3,99", there) == (3,)
    with pytest.raises(ConfigurationError, match=r"hardware.dedicated_cpus is 'all'"):
        dedicated("all", there)


def test_devices_that_the_operator_gives():
    assert devices(("8086:154D", "8086:10ed", "0000:af:00.0"), NODES) == (
        HostDevice(address="0000:3b:00.0", vendor_id="8086", product_id="154d", cell=1, kind="type-PF"),
        HostDevice(
            address="0000:3b:10.1", vendor_id="8086", product_id="10ed", cell=1, kind="type-VF", parent="0000:3b:00.0"
        ),
        HostDevice(address="0000:af:00.0", vendor_id="10de", product_id="1eb8"),
    )
    assert len(devices(("10de:1eb8",), NODES)) == 2
    assert devices((), NODES) == ()


async def test_a_simulated_host_pretends_what_settings_say():
    said = Hardware(
        dedicated_cpus="2-7", devices=("10de:1eb8", "10de:1eb8"), simulated_cells=2, simulated_threads=2,
        simulated_pages={"2048": "128"},
    )  # fmt: skip
    facts = await SimulatedDriver("h1", vcpus=8, memory_mb=2048, hardware=said).facts()
    assert [cell.siblings for cell in facts.cells] == [((0, 1), (2, 3)), ((4, 5), (6, 7))]
    assert [(cell.memory_mb, cell.pages) for cell in facts.cells] == [(768, {2048: 128})] * 2
    assert facts.dedicated_cpus == (2, 3, 4, 5, 6, 7)
    assert [(it.address, it.cell) for it in facts.devices] == [("0000:01:00.0", 0), ("0000:02:00.0", 1)]


def test_what_a_cpu_can_do_has_placements_names():
    assert {"HW_CPU_X86_AVX2", "HW_CPU_HYPERTHREADING", "COMPUTE_NODE"} <= set(traits(["avx2"], Abilities(), threads=2))
    assert "HW_CPU_HYPERTHREADING" not in traits([], Abilities())
    assert {"HW_ARCH_X86_64", "COMPUTE_ARCH_X86_64"} <= set(traits([], Abilities(), arch="x86_64"))


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64", "i686", "loongarch64", ""])
def test_a_host_tells_of_nothing_that_has_no_name(arch):
    told = set(traits([*_FEATURES, "unheard-of"], Abilities(tpm=True, secure_boot=True), threads=2, arch=arch))
    assert told <= standard_traits()
    assert ("COMPUTE_ARCH_RISCV64" in told) is (arch == "riscv64")


def test_the_meter_tells_shares_of_the_time_between(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
    meter = Meter(stat)
    assert meter.read() == {}
    stat.write_text("cpu  130 10 120 820 20 0 0 0 0 0\n")
    assert meter.read() == {
        "cpu.percent": 0.6,
        "cpu.user.percent": 0.4,
        "cpu.kernel.percent": 0.2,
        "cpu.idle.percent": 0.2,
        "cpu.iowait.percent": 0.2,
    }
    assert Meter(tmp_path / "none").read() == {}


@pytest.mark.live
@pytest.mark.xdist_group("live")
async def test_a_real_host_tells_what_it_has(libvirtd, hypervisor_folder):
    said = Hardware(dedicated_cpus="1-8191", devices=("ffff:ffff",))
    driver = LibvirtDriver("host-1", libvirtd.uri, hypervisor_folder / "hypervisor", hardware=said)
    await driver.start(lambda id: None, lambda id, words: None)
    try:
        facts = await driver.facts()
    finally:
        await driver.close()
    cpus = [cpu for cell in facts.cells for cpu in cell.cpus]
    assert len(cpus) == facts.vcpus
    assert facts.dedicated_cpus == tuple(cpu for cpu in cpus if cpu)
    assert all(cell.memory_mb > 0 for cell in facts.cells)
    assert facts.devices == ()
    assert "COMPUTE_NODE" in facts.traits
    metrics = driver.metrics()
    assert set(metrics) == {f"cpu.{it}percent" for it in ("", "user.", "kernel.", "idle.", "iowait.")} or not metrics
