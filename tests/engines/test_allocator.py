"""The allocator keeps freed memory once it is told to, and not before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
import fuseloop.engines
from fuseloop.engines.allocator import tune_allocator
if sys.argv[1] == "tuned":
    assert tune_allocator()
for _ in range(20):
    torch.zeros(1 << 23).add_(1)  # 32 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(mode: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_tuned_processes_do_not_ask_the_system_for_the_same_memory_again():
    # Of 20 arrays of 8192 pages each, most are made of what was freed before.
    assert page_faults("plain") - page_faults("tuned") > 10 * 8192
