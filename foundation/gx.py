"""The only importer of Great Expectations (the ``gx`` extra), in a child process: it is heavy and has global state.

The parent writes the table and the expectations to a temporary folder, the child (``python -m foundation.gx <folder>``)
validates a pandas copy and leaves the result there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather

from foundation.errors import InvalidInput, NotSupported

__all__ = ["is_installed", "validate"]

_PACKAGE = "great_expectations"
_TIME_LIMIT = 600
"""Seconds a validation may take."""


def is_installed() -> bool:
    """Whether Great Expectations can be imported."""
    return importlib.util.find_spec(_PACKAGE) is not None


def validate(table: pa.Table, expectations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Validate a table through Great Expectations; one result document per expectation, in order.

    Row-level results carry ``unexpected_index_list``: the numbers of the unexpected rows.

    Raises:
        NotSupported: it is not installed.
        InvalidInput: it does not know an expectation or refuses its arguments.
    """
    if not is_installed():
        names = ", ".join(sorted({str(each["type"]) for each in expectations}))
        raise NotSupported(
            f"{names} is checked by Great Expectations, which is not installed",
            subject="gate",
            hint="install the extra: pip install 'tilth[gx]'",
        )
    with tempfile.TemporaryDirectory(prefix="tilth-gx-") as name:
        folder = Path(name)
        pyarrow.feather.write_feather(table, folder / "table.arrow", compression="uncompressed")
        (folder / "suite.json").write_text(json.dumps(list(expectations)))
        child = subprocess.run(
            [sys.executable, "-m", "foundation.gx", name],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
        answer = folder / "result.json"
        if child.returncode or not answer.exists():
            told = next(reversed(child.stderr.strip().splitlines()), f"exit code {child.returncode}")
            raise InvalidInput(f"Great Expectations fails: {told}", subject="gate", hint="check the suite")
        found: list[dict[str, Any]] = json.loads(answer.read_text())
        return found


def _child(folder: Path) -> None:
    import great_expectations
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    frame = pyarrow.feather.read_table(folder / "table.arrow").to_pandas()
    documents = json.loads((folder / "suite.json").read_text())
    context = great_expectations.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("source").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("batch").get_batch({"dataframe": frame})
    results = []
    for document in documents:
        configuration = ExpectationConfiguration(type=document["type"], kwargs=document["kwargs"])
        found = batch.validate(configuration.to_domain_obj(), result_format={"result_format": "COMPLETE"})
        results.append(found.to_json_dict())
    (folder / "result.json").write_text(json.dumps(results, default=str))


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
