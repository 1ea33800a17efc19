from pathlib import Path
from typing import Any

import pytest

from mmtool.errors import RequestError, SourceError, UnknownName
from mmtool.prepare.loader import load_preparer, options_json, parse_options, resolve_source

OPTIONS = """
from typing import Literal
from mmtool.prepare import api

class Options(api.Options):
    rate_hz: int = 16000
    share: float = 0.5
    keep: bool = False
    name: str = ""
    channels: Literal[1, 3] = 3
    takes: tuple[int, ...] = ()
"""


@pytest.fixture
def preparer(release: Any) -> Any:
    text = release.preparer.read_text()
    head, rest = text.split("class Options", 1)
    file = release.preparer.with_name("many_options.py")
    file.write_text(head + OPTIONS + "\ndef columns" + rest.split("def columns", 1)[1])
    return load_preparer(str(file))


def test_option_texts_become_typed_values(preparer: Any) -> None:
    given = {
        "rate_hz": "8000",
        "share": "0.25",
        "keep": "true",
        "name": "7",
        "channels": "1",
        "takes": "[1, 2]",
    }
    assert options_json(parse_options(preparer, given)) == {
        "rate_hz": 8000,
        "share": 0.25,
        "keep": True,
        "name": "7",
        "channels": 1,
        "takes": [1, 2],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": "1"}, "did you mean 'rate_hz'?"),
        ({"rate_hz": "fast"}, "rate_hz = 'fast'"),
        ({"channels": "2"}, "channels = '2'"),
        ({"keep": "perhaps"}, "keep = 'perhaps'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    preparer: Any, given: dict[str, str], expected: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_options(preparer, given)
    assert expected in str(caught.value)


def test_a_preparer_without_options_takes_none(release: Any) -> None:
    text = release.preparer.read_text()
    head, rest = text.split("class Options", 1)
    file = release.preparer.with_name("no_options.py")
    file.write_text(head + "def columns" + rest.split("def columns", 1)[1])
    preparer = load_preparer(str(file))
    assert options_json(parse_options(preparer, {})) == {}
    with pytest.raises(RequestError, match="it has no options"):
        parse_options(preparer, {"scale": "1"})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("def clips(", "def klips(", "does not define clips"),
        ('LICENCE = "none"', "", "does not define LICENCE"),
        ('TITLE = "Arrays for tests"', "TITLE = 3", "defines with a wrong type TITLE"),
        ("class Options(api.Options)", "class Options", "not a model of options"),
    ],
)
def test_a_preparer_that_breaks_the_contract_is_named_with_its_file(
    release: Any, old: str, new: str, expected: str
) -> None:
    file = release.preparer.with_name("broken.py")
    file.write_text(release.preparer.read_text().replace(old, new))
    with pytest.raises(RequestError) as caught:
        load_preparer(str(file))
    assert expected in str(caught.value)
    assert "broken.py" in str(caught.value)


def test_unknown_preparers_suggest_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'manifest'"):
        load_preparer("manifst")


def test_without_a_source_the_bundled_sample_is_taken(release: Any, tmp_path: Path) -> None:
    preparer = load_preparer(str(release.preparer))
    with pytest.raises(SourceError, match="--source DIR"):
        resolve_source(preparer, None)
    with pytest.raises(SourceError, match="does not exist"):
        resolve_source(preparer, tmp_path / "nowhere")
    with release.preparer.open("a") as file:
        file.write("\nfrom pathlib import Path\nBUNDLED = Path(__file__).parent\n")
    bundled = release.preparer.with_name("bundled.py")
    release.preparer.rename(bundled)
    assert resolve_source(load_preparer(str(bundled)), None).root == bundled.parent


def test_a_list_that_cannot_be_read_is_the_users_error(release: Any) -> None:
    with release.preparer.open("a") as file:
        file.write(
            "\nfrom mmtool.media.records import read_idx\n"
            "def clips(root, options):\n    yield read_idx(root / 'list.txt')\n"
        )
    preparer = load_preparer(str(release.preparer))
    with pytest.raises(SourceError, match="lists the clips of arrays cannot be read") as caught:
        preparer.clips(release.root, preparer.options_model())
    assert "list.txt" in caught.value.where
