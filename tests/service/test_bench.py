"""`tilth bench` hands on what it is given, and says where benchmarks are when they are not there."""

from __future__ import annotations

import json

import pytest

from foundation.errors import NotFound, NotSupported
from service.bench import NAMES, run_benchmarks

SCRIPT = "import sys; print('ran', sys.argv[1:]); sys.exit(int('--fail' in sys.argv))\n"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    for name in ("__init__", "__main__", *NAMES):
        (folder / f"{name}.py").write_text(SCRIPT if name != "__init__" else "")
    return tmp_path


def test_all_or_some_are_run_with_their_options(checkout, capfd):
    assert run_benchmarks([], ["--quick"], as_json=False, root=checkout) == 0
    assert capfd.readouterr().out == "ran ['--quick']\n"
    assert run_benchmarks(["online", "ingest"], [], as_json=False, root=checkout) == 0
    assert capfd.readouterr().out == "ran []\nran []\n"
    assert run_benchmarks(["online"], ["--fail"], as_json=False, root=checkout) == 1


def test_the_answer_is_one_document_with_the_saved_results(checkout, capfd):
    (checkout / "benchmarks" / "results" / "online-small.json").write_text('{"p50": 1}')
    assert run_benchmarks(["online"], ["--quick"], as_json=True, root=checkout) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["results"] == {"online": {"p50": 1}}
    assert json.loads(out)["runs"][0]["exit_code"] == 0
    assert "ran" in err


def test_wrong_names_and_no_checkout(checkout, tmp_path):
    with pytest.raises(NotFound, match="onlin"):
        run_benchmarks(["onlin"], [], as_json=False, root=checkout)
    with pytest.raises(NotSupported, match="source checkout"):
        run_benchmarks([], [], as_json=False, root=tmp_path / "elsewhere")
