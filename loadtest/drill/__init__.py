"""The drill: faults are injected into a running stack, and every answer is compared with the right one."""
