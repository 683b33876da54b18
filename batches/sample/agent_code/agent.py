"""The sample agent: it knows one fix by heart, gets another wrong, and hangs on a third."""

import os
import time
from pathlib import Path

import fixes

prompt = Path(os.environ["TASK_PROMPT"]).read_text(encoding="utf-8")
print("working on", prompt.splitlines()[0])

if "hangs" in prompt:
    time.sleep(3600)
elif "Subtractive" in prompt:
    fixes.subtractive_notation(Path("roman.py"))
else:
    fixes.wrong_guess(Path("roman.py"))
