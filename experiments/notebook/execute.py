"""Execute a notebook, and keep its figures as pictures that any viewer shows.

python experiments/notebook/execute.py [FOLDER]   runs demo.ipynb in FOLDER (here) on its results/demo
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "demo.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"


def executed(notebook: Path, folder: Path, *, timeout_s: int = 600) -> Any:
    """The notebook with its outputs, run in `folder`; the first cell that fails raises."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(content, timeout=timeout_s, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return content


def with_pictures(content: Any) -> Any:
    """The same with every plotly figure as PNG, and without what differs from run to run."""
    import os

    import plotly.graph_objects as go

    from crossdiff.report.export import browser

    os.environ["BROWSER_PATH"] = browser()
    for cell in content.cells:
        cell.get("metadata", {}).pop("execution", None)
        shown = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        if cell["cell_type"] == "code":
            cell["outputs"] = shown
        for output in shown:
            figure = output.get("data", {}).pop(PLOTLY, None)
            if figure is not None:
                drawn = go.Figure({key: figure[key] for key in ("data", "layout")})
                picture = drawn.to_image("png", width=900)
                output["data"] = {"image/png": base64.b64encode(picture).decode()}
    return content


def main() -> None:
    """Write the notebook back with its outputs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    content = with_pictures(executed(NOTEBOOK, folder))
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
