"""`resources`: what of the host a machine may take."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vmctl.spec import limit_scalars, scalars
from vmctl.spec.strict import Strict


class ResourcesSpec(Strict):
    """What of the host a machine may take; what is not written is not limited."""

    example: ClassVar[str] = "{cpu_quota: 150%, memory_limit: 3GiB, disk_read_iops: 500}"
    synonyms: ClassVar[dict[str, str]] = {
        "blkio_weight": "io_weight",
        "cpu_limit": "cpu_quota",
        "cpu_shares": "cpu_weight",
        "cpus": "cpuset",
        "cpuset_cpus": "cpuset",
        "iops_read": "disk_read_iops",
        "iops_write": "disk_write_iops",
        "mem_limit": "memory_limit",
        "memory": "memory_limit",
        "memory_max": "memory_limit",
    }

    cpu_weight: limit_scalars.CpuWeight | None = Field(
        default=None,
        description="Share of the processors where several want them, 1 to 10000; who has no "
        "weight has 100.",
    )
    cpu_quota: limit_scalars.Percent | None = Field(
        default=None,
        description="Most CPU time of the whole machine, QEMU's own threads included, in percent "
        "of one processor: `50%`, `150%`.",
    )
    cpuset: limit_scalars.CpuList | None = Field(
        default=None,
        description="The host's processors it may run on: `0-1`; in braces quoted, `'0,2'`.",
    )
    memory_limit: scalars.Memory | None = Field(
        default=None,
        description="Most memory that QEMU takes, the guest's included; the kernel ends it above "
        "that. At least `memory_max` and 256MiB.",
    )
    io_weight: limit_scalars.IoWeight | None = Field(
        default=None,
        description="Share of the host's disk where several want it, 100 to 1000; who has no "
        "weight has 100. Needs an I/O scheduler that weighs: bfq.",
    )
    disk_read_iops: limit_scalars.Iops | None = Field(
        default=None, description="Most reads each second, for each disk."
    )
    disk_write_iops: limit_scalars.Iops | None = Field(
        default=None, description="Most writes each second, for each disk."
    )
    disk_read_rate: limit_scalars.Rate | None = Field(
        default=None, description="Most bytes read each second, for each disk: `10MiB`."
    )
    disk_write_rate: limit_scalars.Rate | None = Field(
        default=None, description="Most bytes written each second, for each disk."
    )
    net_rate: limit_scalars.Rate | None = Field(
        default=None,
        description="Most bytes each second, for each card and direction, in whole KiB; not on "
        "networks of kind `user`.",
    )

    @property
    def of_disks(self) -> tuple[str, ...]:
        """The limits of disks that are written."""
        return tuple(
            key for key in type(self).model_fields if key[:5] == "disk_" and getattr(self, key)
        )
