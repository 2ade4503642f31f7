"""Print the README's command of a name: the code block after the line ``<!-- command: NAME -->``."""

import pathlib
import re
import sys

text = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
found = re.search(rf"<!-- command: {re.escape(sys.argv[1])} -->\s*```(?:bash|sh)\n(.*?)```", text, re.S)
if found is None:
    sys.exit(f"README.md has no command named {sys.argv[1]}")
print(found[1].strip())
