"""Runs examples/tour.py; writes tour.md of what each step prints, its pictures and its code.

python docs/tour_page.py
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALTERNATIVES = {
    "functions.png": "Sigmoid, tanh and ReLU over x from -5 to 5, each with its slope dashed: "
    "those of sigmoid and tanh are bumps around 0, that of ReLU leaps from 0 to 1.",
    "tour.png": "The loss over 150 steps, a panel for each of five optimizers: SGD is down after "
    "ten steps, momentum swings, RMSprop and Adagrad follow SGD, Adam takes forty.",
}


def main():
    command = [sys.executable, "../examples/tour.py", "tour"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    functions = re.findall(
        r'^    "(.+)": (\w+),$', steps_of(HERE.parent / "examples/tour.py"), re.M
    )
    _, *printed = re.split(r"\n(\d\. .*)\n---+\n", done.stdout)
    parts = ["# A tour\n\nWhat `python examples/tour.py` prints, and the code of each step.\n"]
    for heading, text, (_, function) in zip(printed[::2], printed[1::2], functions, strict=True):
        parts.append(f"## {heading}\n\n```text\n{text.strip(chr(10))}\n```\n")
        for name in re.findall(r"tour/(\w+\.png)", text):
            parts.append(f"![{ALTERNATIVES[name]}](tour/{name})\n")
        include = "```{literalinclude} ../examples/tour.py\n"
        parts.append(f"{include}:pyobject: {function}\n```\n")
    (HERE / "tour.md").write_text("\n".join(parts), encoding="utf-8")


def steps_of(path):
    return (
        path.read_text(encoding="utf-8").partition("\nSTEPS = {\n")[2].partition("\n}\n")[0] + "\n"
    )


if __name__ == "__main__":
    main()
