"""Settings classes: their checks, and that YAML files, defaults and help texts agree with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal, Optional

import pytest

from recbole_bbqrec.config.config import BBQRecConfig, options_read
from recbole_bbqrec.config.options import (
    ONE_PHASE,
    PHASE_ONE,
    PHASE_TWO,
    PHASE_TWO_ONLY,
    ProtocolSettings,
    RunSettings,
)
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model import baseline_settings as of_baselines
from recbole_bbqrec.model import settings as of_models
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.settings import (
    Positive,
    Probability,
    Settings,
    SettingsError,
    at_least,
    between,
    check_of,
    checks_by_option,
    option,
    options_of,
    read,
)
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings
from recbole_bbqrec.tokenizer.rqvae import settings as of_rqvae

#: The model whose YAML file has a class's defaults; overall.yaml for None.
SOURCES = {
    GeneratorSettings: "BBQRec",
    BBQSettings: "BBQRec",
    of_models.GeneratorFeatureSettings: "BBQRec",
    of_models.NeighbourSettings: "BBQRec",
    of_models.ModalitySettings: "BBQRec",
    of_models.PhaseOneSettings: "BBQRec",
    of_models.PhaseTwoSettings: "BBQRec",
    of_models.TIGERSettings: "TIGER",
    of_rqvae.RQVAESettings: "TIGER",
    of_rqvae.LETTERSettings: "LETTER",
    of_rqvae.CollaborativeSettings: "LETTER",
    of_models.LETTERGenerationSettings: "LETTER",
    of_rqvae.CoSTSettings: "CoST",
    of_models.HistoryTrainingSettings: "ESASRec",
    of_baselines.ESASRecSettings: "ESASRec",
    of_baselines.CodeSettings: "VQRec",
    of_baselines.RPGSettings: "RPG",
    of_baselines.MISSRecSettings: "MISSRec",
    of_baselines.MMGRU4RecSettings: "MMGRU4Rec",
    of_baselines.MMSASRecSettings: "MMSASRec",
    of_baselines.NOVABERTSettings: "NOVABERT",
    of_models.STARSettings: "STAR",
    of_models.TGHSettings: "TGH",
    RunSettings: None,
    ProtocolSettings: None,
}

# the classes and the YAML files -----------------------------------------------------------------


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_every_class_has_a_source():
    assert {*PHASE_ONE, *PHASE_TWO, *ONE_PHASE} <= {*SOURCES}


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_defaults_are_those_of_the_yaml_files(kind):
    model = SOURCES[kind] or "ESASRec"
    config = BBQRecConfig(model, "nowhere")
    for each in options_of(kind).values():
        assert config[each.name] == plain(each.default), each.name
        assert each.name in options_read(model, "nowhere"), f"{model}.yaml lacks {each.name}"


def comments(path):
    """Each key of a YAML file and its comment, the lines below it joined."""
    result, key = {}, None
    for line in path.read_text().splitlines():
        first = re.match(r"(\w+):.*?\s# (.*)", line)
        more = re.match(r"\s+#\s+(.*)", line)
        if first:
            key = first[1]
            result[key] = first[2]
        elif more and key:
            result[key] += " " + more[1]
        else:
            key = None
    return result


def described(check, help=""):
    """A pattern of the comment: type, perhaps a unit, then the help; sources may be anywhere."""
    start = r"\(" + re.escape(check.short) + r"(, \w+)?\) "
    return start + re.escape(help.rstrip("."))


def without_sources(text):
    return re.sub(r" \((paper|its code)[^)]*\)", "", text)


@pytest.mark.parametrize("kind", [k for k in SOURCES if SOURCES[k]], ids=lambda kind: kind.__name__)
def test_comments_of_the_yaml_file_begin_with_type_and_help(kind):
    found = comments(properties_directory() / "model" / f"{SOURCES[kind]}.yaml")
    own = [each for each in options_of(kind).values() if each.name in found]
    overridden = {"codebook_levels", "disambiguation"} if SOURCES[kind] == "LETTER" else set()
    assert own
    for each in own:
        if each.name not in overridden:
            assert re.match(described(each.check, each.help), without_sources(found[each.name]))


def test_comments_of_all_our_yaml_files_begin_with_the_type():
    known = {}
    for kind in SOURCES:
        for each in options_of(kind).values():
            known.setdefault(each.name, set()).add(each.check)
    counted = 0
    for path in (properties_directory() / "model").glob("*.yaml"):
        if path.name.split(".")[0] not in MODELS:
            continue
        found = comments(path)
        assert {*read_yaml(path)} == {*found}, f"{path.name}: a key without a comment"
        for name in known.keys() & found.keys():
            counted += 1
            assert any(re.match(described(check), found[name] + " ") for check in known[name]), (
                f"{path.name}: {name}: {found[name]}"
            )
    assert counted > 150


def test_a_search_on_fixed_semantic_ids_changes_phase_two_alone():
    assert {"learning_rate", "num_beams", "hidden_size", "generation_temperature"} < PHASE_TWO_ONLY
    shared = {"codebook_size", "codebook_levels", "feature_scaling", "MAX_ITEM_LIST_LENGTH"}
    assert not PHASE_TWO_ONLY & {*shared, "precision", "modalities", "tokenizer_epochs"}


# the reader -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network(Settings):
    n_items: Annotated[int, at_least(2)]
    width: Positive = option(8, "Width.")
    heads: Positive = option(2, "Heads.", name="n_heads")
    rate: Probability = option(0.1, "Dropout.")
    shape: Literal["long", "wide"] = option("wide", "Shape.")
    layers: Annotated[tuple[Positive, ...], "integers of at least 1"] = option((4, 4), "Layers.")
    path: Optional[str] = option(None, "File.")  # noqa: UP045

    def __post_init__(self):
        super().__post_init__()
        self._require_multiple("width", "heads")


@dataclass(frozen=True)
class Wide(Network):
    width: Positive = 64


CONFIG = {"width": 6, "n_heads": 3, "rate": 0, "shape": "long", "layers": [1], "path": "a.npy"}


def test_read_takes_options_by_name_and_given_fields():
    assert read(Network, CONFIG, n_items=5) == Network(5, 6, 3, 0, "long", (1,), "a.npy")
    assert read(Network, CONFIG, n_items=5, width=9).width == 9


def test_a_subclass_may_change_a_default_alone():
    assert Wide(3).width == 64
    (name, check, default, help) = options_of(Wide)["width"]
    assert (name, default, help) == ("width", 64, "Width.") and not check.accepts(0)
    assert "n_items" not in options_of(Wide) and len(options_of(Wide)) == len(fields(Wide)) - 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 0}, "Option `width` is 0; expected an integer of at least 1."),
        ({"width": True}, "Option `width` is True; expected an integer of at least 1."),
        ({"width": 7}, "Option `width` is 7; expected a multiple of `n_heads`, which is 3."),
        ({"n_heads": 2.0}, "Option `n_heads` is 2.0; expected an integer of at least 1."),
        ({"rate": 1.0}, "Option `rate` is 1.0; expected a number in [0, 1)."),
        ({"rate": float("nan")}, "Option `rate` is nan; expected a number in [0, 1)."),
        ({"shape": "tall"}, "Option `shape` is 'tall'; expected one of long, wide."),
        (
            {"layers": [1, 0]},
            "Option `layers` is [1, 0]; expected a list of integers of at least 1.",
        ),
        ({"path": ""}, "Option `path` is ''; expected a text, or nothing."),
    ],
)
def test_a_bad_value_of_a_configuration_is_the_users(changes, says):
    with pytest.raises(UserError) as error:
        read(Network, {**CONFIG, **changes}, n_items=5)
    assert str(error.value) == says


def test_a_bad_value_of_the_program_is_no_error_of_the_user():
    with pytest.raises(
        SettingsError, match="Network.n_items is 1; expected an integer of at least"
    ):
        read(Network, CONFIG, n_items=1)
    with pytest.raises(ValueError, match="Network.rate is 2; expected a number in"):
        Network(5, rate=2)


def test_an_option_of_two_classes_accepts_what_one_of_them_does():
    @dataclass(frozen=True)
    class Other(Settings):
        width: Annotated[float, between(-1, 0)] = option(-1, "Another width.")

    check = checks_by_option(Network, Other)["width"]
    assert check.accepts(3) and check.accepts(-0.5) and not check.accepts(0.5)
    assert check.expected.startswith("an integer of at least 1, or a number of at least -1")


def test_a_type_without_a_check_is_refused():
    with pytest.raises(TypeError, match="dict"):
        check_of(dict)
