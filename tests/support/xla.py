"""How XLA compiles in tests: quickly. Programs run once or a few times on tiny arrays, so that most of what a
test costs is their compilation; what they compute does not change."""

from importlib.metadata import version

QUICK = "--xla_backend_optimization_level=0"  # of LLVM
if version("jaxlib").startswith("0.10."):  # later ones have no such flag and refuse what they do not know
    QUICK += " --xla_cpu_use_fusion_emitters=false"  # the newer emitters compile half as fast


def flags(devices: int) -> str:
    """XLA_FLAGS for a process on that many simulated devices."""
    return f"{QUICK} --xla_force_host_platform_device_count={devices}"
