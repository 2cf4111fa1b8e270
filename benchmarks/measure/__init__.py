"""How things are measured: by clients of their own process, from engines' counters, and from the kernel's clocks."""
