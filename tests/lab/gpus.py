"""GPUs that are not there: what nvidia-smi's double prints about them, and a PCI tree that shows them.

Both are test doubles and show plumbing and error handling only; nothing here lets a test say that a GPU works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.debs import DOUBLE

NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


@dataclass(frozen=True)
class Gpu:
    """One pretended GPU. `address` as in sysfs; `device` four hex digits; `memory` in MiB."""

    address: str = "0000:65:00.0"
    device: str = "2237"
    name: str = "NVIDIA A10G"
    uuid: str = "GPU-7e57d0b1-0000-4000-8000-000000000000"
    memory: int = 23028
    compute: str = "8.6"

    @property
    def bus_id(self) -> str:
        """As nvidia-smi prints it: an eight-digit domain, upper case."""
        return f"0000{self.address}".upper()


A10G = Gpu()
TWO_A10G = (A10G, Gpu(address="0000:66:00.0", uuid="GPU-7e57d0b1-0000-4000-8000-000000000001"))

# Shell built-ins only: it is also run in containers that hold a shell and nothing else.
SMI = """#!/bin/sh
# {double}
driver='{driver}'
gpus='{gpus}'
{check}
# As the real one where the device cgroup forbids what it needs.
if [ -e /dev/nvidiactl ] && ! (: >/dev/nvidiactl) 2>/dev/null; then
    echo 'Failed to initialize NVML: Unknown Error'
    exit 255
fi
value() {{ # FIELD, of the GPU in the variables below
    case "$1" in
    index) v=$index ;;
    count) v=$count ;;
    uuid|gpu_uuid) v=$uuid ;;
    name|gpu_name) v=$name ;;
    driver_version) v=$driver ;;
    pci.bus_id|gpu_bus_id) v=$bus ;;
    pci.device_id) v=$pci ;;
    compute_cap) v=$cap ;;
    memory.total) v=$memory; unit=MiB ;;
    memory.used) v=1; unit=MiB ;;
    memory.free) v=$((memory - 1)); unit=MiB ;;
    persistence_mode) v=Enabled ;;
    compute_mode) v=Default ;;
    temperature.gpu) v=30 ;;
    utilization.gpu) v=0; unit=% ;;
    power.draw) v=20.00; unit=W ;;
    serial|vbios_version|mig.mode.current|mig.mode.pending|ecc.mode.current|gpu_recovery_action|fabric.state|fabric.status) v='[N/A]' ;;
    *) printf 'Field "%s" is not a valid field to query.\\n' "$1"; exit 2 ;;
    esac
}}
each() {{ # MODE: run "$mode" for every GPU
    printf '%s\\n' "$gpus" | while IFS='|' read -r index uuid name bus pci memory cap; do "$@" || exit; done
}}
list() {{ printf 'GPU %s: %s (UUID: %s)\\n' "$index" "$name" "$uuid"; }}
row() {{
    line=
    old=$IFS
    IFS=,
    for field in $fields; do
        unit=
        value "$field"
        case "$format" in *nounits*) unit= ;; esac
        line="$line${{line:+, }}$v${{unit:+ $unit}}"
    done
    IFS=$old
    printf '%s\\n' "$line"
}}
header() {{
    line=
    old=$IFS
    IFS=,
    for field in $fields; do
        unit=
        value "$field"
        line="$line${{line:+, }}$field${{unit:+ [$unit]}}"
    done
    IFS=$old
    printf '%s\\n' "$line"
}}
count=0
old=$IFS
IFS='
'
for _ in $gpus; do count=$((count + 1)); done
IFS=$old
fields=
format=csv
mode=banner
while [ $# -gt 0 ]; do
    case "$1" in
    -L|--list-gpus) mode=list ;;
    --query-gpu=*) mode=query; fields=${{1#*=}} ;;
    --format=*) format=${{1#*=}} ;;
    -pm|--persistence-mode) mode=quiet; shift ;;
    --version) mode=version ;;
    *) printf 'nvidia-smi: the test double does not know %s\\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
case "$mode" in
list) each list ;;
query)
    memory=0 index='' uuid='' name='' bus='' pci='' cap=''
    case "$format" in *noheader*) : ;; *) header ;; esac
    each row
    ;;
version) printf 'NVIDIA-SMI version  : %s\\nDRIVER version      : %s\\n' "$driver" "$driver" ;;
quiet) : ;;
banner)
    printf '| NVIDIA-SMI %s   Driver Version: %s   CUDA Version: {cuda} |\\n' "$driver" "$driver"
    echo '| TEST DOUBLE: this is no driver and there is no GPU |'
    each list
    ;;
esac
"""
CHECK = """if [ ! -e /sys/module/nvidia ]; then
    echo "{text}"
    exit 9
fi"""


def nvidia_smi(driver: str, gpus: Sequence[Gpu], needs_module: bool, cuda: str = "13.0") -> str:
    """The text of an nvidia-smi double for a driver version.

    With `needs_module` it fails as the real one does (exit 9) while no kernel module called nvidia is loaded.
    """
    rows = [
        f"{index}|{gpu.uuid}|{gpu.name}|{gpu.bus_id}|0x{gpu.device.upper()}10DE|{gpu.memory}|{gpu.compute}"
        for index, gpu in enumerate(gpus)
    ]
    check = CHECK.format(text=NOT_LOADED) if needs_module else ""
    return SMI.format(double=DOUBLE, driver=driver, gpus="\n".join(rows), check=check, cuda=cuda)


def pci_files(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Files of a PCI tree that shows the GPUs, by path below /sys/bus/pci/devices."""
    files: dict[str, str] = {}
    for gpu in gpus:
        facts = {
            "vendor": "0x10de",
            "device": f"0x{gpu.device.lower()}",
            "class": "0x030200",
            "revision": "0xa1",
            "subsystem_vendor": "0x10de",
            "subsystem_device": "0x152f",
        }
        files.update({f"{gpu.address}/{name}": f"{value}\n" for name, value in facts.items()})
    return files


def show_on_pci(gpus: Sequence[Gpu], beside_real: bool = True) -> str:
    """An sh text, run as root on a lab host, that shows the GPUs under /sys/bus/pci/devices, at every boot again.

    It mounts a folder over the real one; with `beside_real` the real devices stay visible as links.
    """
    lines = ["set -e", "umount /sys/bus/pci/devices 2>/dev/null || :", "d=/usr/local/lib/lab-pci", 'rm -rf "$d"']
    lines.append('mkdir -p "$d"')
    if beside_real:
        lines.append('for e in /sys/bus/pci/devices/*; do ln -s "$(readlink -f "$e")" "$d/${e##*/}"; done')
    for path, text in pci_files(gpus).items():
        folder = path.rsplit("/", 1)[0]
        lines.append(f'mkdir -p "$d/{folder}" && echo {text.strip()} > "$d/{path}"')
    lines.append(f"cat > /etc/systemd/system/lab-pci.service <<'EOF'\n{PCI_UNIT}EOF")
    lines.append("systemctl daemon-reload && systemctl enable --now lab-pci.service")
    return "\n".join(lines) + "\n"


PCI_UNIT = f"""# {DOUBLE}
[Unit]
Description=test double of PCI devices
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount --bind /usr/local/lib/lab-pci /sys/bus/pci/devices
ExecStop=/bin/umount /sys/bus/pci/devices
[Install]
WantedBy=sysinit.target
"""
