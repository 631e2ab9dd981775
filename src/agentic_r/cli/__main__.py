"""`python -m agentic_r.cli`, as torchrun and accelerate start it."""

from __future__ import annotations

import sys

from agentic_r.cli import main

sys.exit(main())
