import asyncio
from pathlib import Path

import pytest

from controller.commands import statuses
from controller.dataplane.trial import TrialDataPlane
from controller.demo import files
from controller.demo.files import DirectoryUnusable
from controller.demo.servers import ModelServer
from controller.provider.file import read
from controller.reconcile import Reconciler, State
from controller.render.files import RenderSettings
from controller.status.types import Severity

SERVERS = (ModelServer("gpu", "gpu-0", "127.0.0.1:9001"), ModelServer("cpu", "cpu-0", "127.0.0.1:9002"))


def test_everything_that_is_written_is_accepted(tmp_path: Path) -> None:
    files.write(tmp_path, SERVERS, port=8080)
    states: list[State] = []

    async def turn() -> None:
        async with TrialDataPlane(None) as data_plane:
            await Reconciler(data_plane, RenderSettings(), on_state=states.append).turn(read(tmp_path), None)

    asyncio.run(turn())
    rows = statuses.rows(states[0])
    assert [row.text for row in rows if row.severity > Severity.PENDING] == []
    assert {row.kind for row in rows} >= {"Gateway", "HTTPRoute", "InferencePool"}


def test_what_the_user_edited_stays(tmp_path: Path) -> None:
    files.write(tmp_path, SERVERS, port=8080)
    (tmp_path / "routes.yaml").write_text("# mine\n")
    files.write(tmp_path, SERVERS[:1], port=8081)
    assert (tmp_path / "routes.yaml").read_text() == "# mine\n"
    assert "port: 8081" in (tmp_path / "gateway.yaml").read_text()
    assert "9002" not in (tmp_path / "endpoints.yaml").read_text()


def test_a_fresh_start_writes_all(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("# mine\n")
    files.write(tmp_path, SERVERS, port=8080, fresh=True)
    assert "weight: 90" in (tmp_path / "routes.yaml").read_text()


def test_the_weight_that_scene_4_edits_stands_once(tmp_path: Path) -> None:
    files.write(tmp_path, SERVERS, port=8080)
    assert (tmp_path / "routes.yaml").read_text().count("weight: 90") == 1


def test_one_demo_has_a_directory(tmp_path: Path) -> None:
    with files.held(tmp_path), pytest.raises(DirectoryUnusable, match="--directory"), files.held(tmp_path):
        pass


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(DirectoryUnusable, match="file exists"), files.held(tmp_path / "demo"):
        pass
