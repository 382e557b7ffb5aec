"""One grammar for all verbs: spellings, lists, options of the models, mistakes and help texts."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from recbole_bbqrec.cli.arguments import model_options
from recbole_bbqrec.cli.grammar import CommandParser, HelpFormatter
from recbole_bbqrec.cli.main import VERBS, main, parse
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.version import __version__

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ["compare", "--models=SASRec", "--datasets=Mini"]


def parsed(*words):
    return parse(words)[1]


def parser_of(verb):
    parser = CommandParser(verb, VERBS[verb].takes_options)
    importlib.import_module(f"recbole_bbqrec.cli.{VERBS[verb].module}").add_arguments(parser)
    return parser


@pytest.mark.parametrize(
    "words",
    [
        ["--models=BBQRec,TIGER", "--datasets=Mini,Beauty", "--seeds=3,5"],
        ["--models", "BBQRec", "TIGER", "--datasets", "Mini", "Beauty", "--seeds", "3", "5"],
        ["--models=BBQRec TIGER", "--datasets", "Mini,Beauty", "--seeds=3, 5"],
    ],
)
def test_lists(words, capsys):
    args = parsed("compare", *words, "--config_files=a.yaml,b.yaml")
    assert args.models == ["BBQRec", "TIGER"] and args.datasets == ["Mini", "Beauty"]
    assert args.seeds == [3, 5] and args.config_files == ["a.yaml", "b.yaml"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("files", [["a.yaml b.yaml"], ["a.yaml", "b.yaml"], ["a.yaml,b.yaml"]])
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_config_files_are_spelt_alike_everywhere(verb, files):
    required = [] if verb == "run" else COMPARE[1:]
    assert parsed(verb, *required, "--config_files", *files).config_files == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--modalities=[text,", "image]"], "'--modalities=[text, image]'"),
        (["--eval_args={'mode':", "'full'}"], "put quotes around"),
        (["--modalities=[text]", "image"], None),  # not divided
    ],
)
def test_an_option_that_the_shell_divided(words, hint):
    with pytest.raises(UserError) as raised:
        parsed("run", "--model=BBQRec", *words)
    assert (hint or "Cannot read the argument `image`; see") in str(raised.value)


def test_an_earlier_name_of_an_argument_works_with_a_hint(capsys):
    for words in (["--out=a.csv"], ["--out", "a.csv"]):
        assert parsed("recommend", "RUN", *words).output == Path("a.csv")
        assert capsys.readouterr().err == "hint: `--out` is now `--output`\n"
    parsed("recommend", "RUN", "--output=a.csv")
    assert capsys.readouterr().err == ""


def test_columns_may_hold_blanks():
    args = parsed("prepare", "Own", "--interactions=x.csv", "--text_columns=title, long text")
    assert args.text_columns == ["title", "long text"]


def test_hyphens_and_set_still_work_with_one_hint_each(capsys):
    args = parsed(
        *COMPARE, "--dry-run", "--any-version", "--set", "epochs=3", "SASRec.n_layers=1",
        "--set=topk=[5, 10]", "--set", "data_path=a-b/c=d",
    )  # fmt: skip
    assert args.dry_run and args.any_version
    assert args.options == [
        "--epochs=3", "--SASRec.n_layers=1", "--topk=[5, 10]", "--data_path=a-b/c=d",
    ]  # fmt: skip
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "hint: `--any-version` is now `--any_version`",
        "hint: `--dry-run` is now `--dry_run`",
        "hint: `--set KEY=VALUE` is now `--KEY=VALUE`",
    ]
    assert parsed("run", "--data-path=my-data").options == ["--data_path=my-data"]
    assert parsed("inspect", "Mini", "--data-path", "my-data").data_path == "my-data"


def test_options_of_all_models_and_of_one():
    words = ["--epochs=3", "--SASRec.n_layers=1", "--eval_args={'mode': 'full'}", "--num_beams=7"]
    args = parsed("compare", "--models", "SASRec", "TIGER", *words, "--datasets=Mini")
    assert args.models == ["SASRec", "TIGER"]  # a value with blanks is not another model
    common, own = model_options(args, args.models, args.datasets)
    assert common == {"epochs": 3, "eval_args": {"mode": "full"}, "num_beams": 7}
    assert own == {"SASRec": {"n_layers": 1}}


def test_one_model_may_be_named_in_run(monkeypatch):
    calls = []
    monkeypatch.setattr("recbole_bbqrec.quick_start.run", lambda *args: calls.append(args))
    words = ["--TIGER.num_beams=5", "--epochs=2", "--prepare"]
    assert main(["run", "--model=TIGER", "--dataset=Mini", *words, "--config_files=a,b"]) == 0
    options = {"num_beams": 5, "epochs": 2, "prepare": True}
    assert calls == [("TIGER", "Mini", ["a", "b"], options)]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run", "--model=TIGER", "--num_beams", "5"], ["`--num_beams`", "--key=value"]),
        (["run", "--prepar"], ["`--prepar`", "in full: `--prepare`"]),
        (["run", "Mini"], ["`Mini`", "run --help"]),
        ([*COMPARE, "--dry"], ["`--dry`", "in full: `--dry_run`"]),
        ([*COMPARE, "--outptu", "x"], ["`--outptu`", "Did you mean `--output`?"]),
        (["compare", "--modles=SASRec", "--datasets=Mini"], ["`--modles=SASRec`", "`--models`?"]),
        (["compare", "--models=", "--datasets=Mini"], ["--models", "at least one value"]),
        (["compare", "--datasets=Mini"], ["required", "--models", "compare --help"]),
        ([*COMPARE, "--seeds=three"], ["--seeds", "three", "integers"]),
        ([*COMPARE, "--set", "epochs"], ["`epochs`", "KEY=VALUE"]),
        ([*COMPARE, "--set", "=3"], ["`=3`", "KEY=VALUE"]),
        (
            ["tune", "--model=TIGER", "--dataset=M", "--params=p", "--algo=best"],
            ["--algo", "random"],
        ),
        (["prepare", "Shop", "--num_beams=3"], ["`--num_beams=3`", "prepare --help"]),
        (["prepare", "Shop", "--text-encodr=x"], ["`--text_encodr=x`", "`--text_encoder`?"]),
        (["prepare", "Shop", "--user_core=few"], ["--user_core", "few"]),
        (["inspect"], ["required", "NAME"]),
        (["models", "--set", "a=1"], ["`--a=1`", "models --help"]),
        (["trian", "--model=X"], ["`trian`", "reproduce", "expected run, compare"]),
        (["--model=BBQRec"], ["`--model=BBQRec`", "expected run"]),
    ],
)
def test_mistakes(words, parts, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sedes=3"], "Unknown argument `--sedes=3` of `compare`. Did you mean `--seeds`?"),
        (["--dataset=Beauty"], "Unknown argument `--dataset` .*Write it in full: `--datasets`"),
        (["--TIGER.epochs=3"], "`TIGER`, which is not among the models of this command: SASRec"),
        (["--epochs=3", "--set", "epochs=4"], "`epochs` is given twice: 3 and 4"),
    ],
)
def test_mistakes_in_options_of_the_models(options, message):
    args = parsed(*COMPARE, *options)
    with pytest.raises(UserError, match=message):
        model_options(args, args.models, args.datasets)


@pytest.mark.parametrize("words", [["--version"], ["run", "--version"]])
def test_version(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"recbole_bbqrec {__version__}\n"


def test_help_of_the_whole(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb, entry in VERBS.items():
        assert len(re.findall(rf"^  {verb} +{re.escape(entry.summary)}$", text, re.M)) == 1
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_has_a_help_text_and_a_default(verb):
    parser = parser_of(verb)
    formatter = HelpFormatter(verb)
    for action in parser._actions:
        assert action.help, action
        optional = action.option_strings and not action.required
        if optional and not isinstance(action, argparse._HelpAction):
            text = formatter._expand_help(action)
            assert text.count("(default") == 1, f"{verb} {action.option_strings}: {text}"
        assert all("-" not in name[2:] for name in action.option_strings), "underscores"


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_in_groups_and_fits_the_screen(verb, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "Exit codes: 0, done;" in text
    assert len(re.findall(r"^[\w' ]+:$", text, re.M)) >= 3  # --help's group, another, the example
    example = text.rpartition("Example:\n\n  python -m recbole_bbqrec ")[2]
    parse(shlex.split(example))  # to the end
    too_long = [line for line in text.splitlines() if len(line) > 80]
    assert not too_long, too_long


# every command line of the documentation ------------------------------------------------------

#: As README, docs/ and benchmarks/README.md gave them before the spellings became one.
EARLIER = """\
models
run --model=BBQRec --dataset=Beauty --config_files="mine.yaml" --num_beams=100
run --model=SASRec --dataset=Beauty
run --model=BBQRec --dataset=Mini --resume=saved/run --tokenize_only=True
run --model=FPMC --dataset=Mini --train_neg_sample_args="{'distribution':'popularity','sample_num':4}"
run --model=BBQRec --dataset=Beauty --config_files=properties/model/BBQRec.paper.yaml --precision=bfloat16
evaluate saved/<run> --mask_history=True --num_beams=50
evaluate saved/<run> --split valid --cooccurrence_weight=0 --feature_similarity_weight=0
evaluate RUN RUN --model=VQRecNeighbours --output DIR
evaluate --mask_history=True RUN --num_threads=2 RUN
report saved/<run>
prepare Beauty
prepare Beauty --raw DIR
prepare Beauty --raw DIR --no-images
prepare Beauty --no-images --text-encoder sentence-transformers/all-MiniLM-L6-v2
prepare Beauty --source DIRECTORY --text-encoder precomputed
prepare Shop --interactions orders.csv --items products.csv --text-columns title,description --features image=vectors.npy,vector_items.txt
prepare Copy --interactions dataset/Mini/Mini.inter --items dataset/Mini/Mini.titles.tsv --features image=dataset/Mini/Mini.image.npy,dataset/Mini/Mini.image.items.txt
prepare Shop --interactions x.csv --user-column who --min-rating 4 --repeats first --user-core 3 --item-core 1 --strict --force --data-path data
inspect Shop
inspect Shop --data-path data --item a --item b --output shop.png
compare --models BBQRec TIGER SASRec --datasets Beauty Sports --seeds 3
compare --models BBQRec ESASRec --datasets Beauty --seeds 3 --set num_threads=1 BBQRec.precision=bfloat16
compare --models BBQRec --datasets Beauty --config_files properties/model/BBQRec.paper.yaml --set num_threads=1 precision=bfloat16
compare --models ItemNeighbours --datasets Beauty Sports Clothing --set num_threads=1 --dry-run --any-version
tune --model BBQRec --dataset Beauty --params space.txt --fixed-tokenizer --algo bayes --trials 30
reproduce table2 --seeds 3
reproduce figure3 --sweeps L K
reproduce figure3 --datasets Mini --set 'modalities=[text,image]' --budget 60 --dry-run
"""  # noqa: E501


@pytest.mark.parametrize("line", EARLIER.splitlines())
def test_earlier_command_lines_are_read(line):
    args = parsed(*shlex.split(line))
    values = parse_overrides(args.options)
    for word in re.findall(r"(\w+)=(?!.*\.npy)", line.partition("--set ")[2]):
        assert any(key.rpartition(".")[2] == word for key in values), word


def test_earlier_spellings_mean_what_they_meant():
    line = next(line for line in EARLIER.splitlines() if "--user-column" in line)
    args = parsed(*shlex.split(line))
    assert (args.user_column, args.min_rating, args.repeats) == ("who", 4.0, "first")
    assert (args.user_core, args.item_core, args.strict, args.force) == (3, 1, True, True)
    args = parsed("evaluate", "--mask_history=True", "RUN", "--num_threads=2", "OTHER")
    assert args.runs == [Path("RUN"), Path("OTHER")]


COMMAND = re.compile(
    r"python (?:-m recbole_bbqrec|(run_recbole_bbqrec\.py)) ([^`\n]+?)(?=`|\n|  +#| && )"
)


def documented():
    """Return the command lines in the documentation, continued lines joined."""
    params = []
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md",
                 *sorted((ROOT / "docs").glob("*.md"))]:  # fmt: skip
        text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
        for script, line in COMMAND.findall(text):
            if "$" in line:  # a variable of the shell stands for the rest
                continue
            words = [word for word in shlex.split(line) if word != "..."]
            words = ["run", *words] if script else words
            if words[0] in VERBS and len(words) > 1:
                params.append(pytest.param(words, id=f"{path.name}: {line}"))
    return params


@pytest.mark.parametrize("words", documented())
def test_documented_command_lines_are_read(words):
    parse(words)


def test_the_documentation_has_command_lines():
    assert {param.values[0][0] for param in documented()} >= {"run", "compare", "prepare"}
