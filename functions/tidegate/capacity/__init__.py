"""How many cores, environments and servers some traffic needs on each data plane, what they cost, and what breaks first."""
