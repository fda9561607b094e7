from __future__ import annotations

from selfpos.cli import main

main()
