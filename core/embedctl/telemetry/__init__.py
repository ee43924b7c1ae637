"""Reading the machine: NVML, the host, and a simulated GB10 for the demo."""
