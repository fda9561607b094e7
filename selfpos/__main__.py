from __future__ import annotations

from selfpos.cli import main

try:
    main()
finally:
    # Ctrl-C within an `exec` of text, of which imports do many, marks the process: under `python -m` it would
    # end by the signal, not with status 130, though `main` has answered. The next `exec` takes the mark off.
    exec("")
