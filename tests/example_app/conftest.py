"""A machine whose every reading is known."""

from __future__ import annotations

import pytest

from example_app.system import Cpu, Disk, Memory, Network, Process, Snapshot, Swap, Temperature

GIB = 2**30


@pytest.fixture
def machine() -> Snapshot:
    return Snapshot(
        at=1_700_000_000.0,
        cpu=Cpu(37.5, (25.0, 50.0), 2, 1, (0.5, 0.25, 0.125)),
        memory=Memory(8 * GIB, 2 * GIB, 6 * GIB, 75.0),
        swap=Swap(4 * GIB, GIB, 3 * GIB, 25.0),
        disks=(
            Disk("/", "/dev/a", 100 * GIB, 80 * GIB, 20 * GIB, 80.0),
            Disk("/srv", "/dev/b", 500 * GIB, 50 * GIB, 450 * GIB, 10.0),
        ),
        network=Network(3 * GIB, 5 * GIB, 2048.0, 1024.0 * 1024),
        processes=(
            Process(1, "init", 10 * 2**20, 0.0),
            Process(7, "python", 3 * GIB, 12.5),
            Process(8, "python", GIB, 80.0),
            Process(9, "nginx", 64 * 2**20, 3.0),
        ),
        boot_time=1_700_000_000.0 - 2 * 86400 - 3 * 3600,
        temperatures=(Temperature("cpu", 48.0),),
        hostname="box",
        system="Linux 6.1",
    )
