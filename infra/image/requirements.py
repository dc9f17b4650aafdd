"""Print what an image installs, from pyproject.toml: `requirements.py step|kfp|service|tools`.

A step's container needs of kfp only the executor, which imports nothing but kfp itself: kfp goes in
without its dependencies, whose exact pins stay out of it. The service compiles pipelines, talks to
the Kubeflow API and serves MLflow. Tools are for the build and stay out of both.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

TOOLS = ("cyclonedx-bom==7.5.0", "setuptools>=77", "wheel")


def requirements(which: str, project: dict[str, Any]) -> list[str]:
    """One requirement per line of the output. Raises KeyError for an image that there is not."""
    needed, extras = project["dependencies"], project["optional-dependencies"]
    kfp = [one for one in needed if one.startswith("kfp")]
    return {
        "step": [one for one in needed if one not in kfp],
        "kfp": kfp,
        "service": [*kfp, *extras["cluster"], *extras["server"]],
        "tools": list(TOOLS),
    }[which]


if __name__ == "__main__":
    read = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    sys.stdout.write("\n".join(requirements(sys.argv[1], read)) + "\n")
