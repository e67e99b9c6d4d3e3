"""Triton decides at import whether kernels are interpreted, so the interpreted tests have a process of their
own: `interpreted/` is collected only where TRITON_INTERPRET=1 is set, and test_interpreted.py sets it."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
